"""The laws that recipes and their parts keep, for other people's as well as ours.

    bitbudget check your_package
    pytest --pyargs bench.laws --recipes your_package

`compressors` and `garbage` hold for a part alone, `recipes` for a whole recipe. Each law is a function that asserts it.
"""
