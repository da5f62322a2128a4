"""The suite's own configs, models, data modules and scripts.

In a checkout these are links to the folders at its top; in an installed package they are here. So the package adds no
top-level name besides `bench`, and works in projects that have folders of these names themselves.
"""
