"""Colours of algorithms and titles of quantities, shared by all figures, panels and the dashboard."""

import math
from typing import Any

COLORS = {  # on white: 3:1 against it, and told apart by the colour-blind, as a search found them
    "sgd": "#4E4247",
    "sparse": "#145183",
    "lasg": "#399AD5",
    "sasg": "#191068",
    "signsgd": "#6503C1",
    "signsgd_mv": "#C47200",
    "signum": "#998FA0",
    "signum_mv": "#809B65",
    "ef_signsgd": "#DB4583",
    "sparse_signsgd": "#A64100",
    "gspar": "#118052",
    "gspar_closed": "#02A944",
    "unisp": "#5B55D8",
    "random_k": "#080819",
    "qsgd": "#400601",
    "terngrad": "#722306",
    "powersgd": "#637678",
    "natural": "#3C1D18",
    "half": "#704230",
    "dgc": "#5FA326",
    "ef21": "#6C5CC5",
    "diana": "#472991",
    "lag": "#7994BA",
    "laq": "#76106C",
    "diloco": "#970AFD",
    "sparseloco": "#9B80FE",
    "demo": "#924E2B",
    "sparta": "#080101",
    "lazy_signs": "#270142",
}
OTHERS = "#58194A"

DARK = {  # the same on the dark page
    "sgd": "#8C8C8C",
    "sparse": "#62A2DC",
    "lasg": "#AFDFFF",
    "sasg": "#895890",
    "signsgd": "#9359F8",
    "signsgd_mv": "#EABA4A",
    "signum": "#FFFEDC",
    "signum_mv": "#B9E5AC",
    "ef_signsgd": "#CBC5D4",
    "sparse_signsgd": "#D58948",
    "gspar": "#5CD6AE",
    "gspar_closed": "#90FE9B",
    "unisp": "#859AFE",
    "random_k": "#76693B",
    "qsgd": "#A337BE",
    "terngrad": "#D45B58",
    "powersgd": "#C9BC80",
    "natural": "#509360",
    "half": "#90A9C2",
    "dgc": "#E0E376",
    "ef21": "#E6FDFF",
    "diana": "#6A74E0",
    "lag": "#FBD4D2",
    "laq": "#B26DB9",
    "diloco": "#2BFF00",
    "sparseloco": "#B79002",
    "demo": "#C83900",
    "sparta": "#587811",
    "lazy_signs": "#9815FE",
}
DARK_OTHERS = "#925967"

PALETTES = {"light": {**COLORS, "others": OTHERS}, "dark": {**DARK, "others": DARK_OTHERS}}
"""Colours of recipes; recipes without one have that of the others."""

GREYS = {"fp32": "#dddddd", "fp16": "#bbbbbb", "bf16": "#999999"}
"""Of dense all-reduces, by format."""

TITLES = {
    "round": "rounds",
    "uploads": "uploads",
    "uplink_bits": "uplink bits",
    "uplink_bits_paper": "uplink bits, the papers' count",
    "total_bits": "bits both ways",
    "data_passes": "data passes",
    "dense_passes": "data passes × density",
    "modelled_s": "modelled seconds",
    "measured_s": "measured seconds",
    "measured_ms": "milliseconds",
    "test_accuracy": "test accuracy",
    "test_top5_accuracy": "top-5 test accuracy",
    "train_loss": "training loss",
    "suboptimality": "suboptimality",
    "val_loss": "validation loss",
    "val_perplexity": "perplexity",
    "gradient_norm": "gradient norm",
    "compression_error": "compression error",
    "bits_over_bound": "wire bits over information bound",
    "message_bits": "bits a message",
    "learning_rate": "learning rate",
    "rounds_per_s": "rounds a second",
    "ridge": "λ₂ =",
    "factor": "shrunk by",
    "threshold": "shrunk below",
    "num_byzantine": "Byzantine workers f",
    "workers": "workers M",
    "density": "density K/d",
    "num_channels": "channels",
    "num_labels": "labels a worker:",
}

LOGARITHMIC = (
    "uplink_bits",
    "uplink_bits_paper",
    "total_bits",
    "modelled_s",
    "measured_s",
    "dense_passes",
    "suboptimality",
)
"""Quantities with a logarithmic axis."""

DASHES: Any = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
"""Of lines of one colour."""

STYLES = dict.fromkeys(("test_accuracy", "test_top5_accuracy"), "percent")
STYLES |= dict.fromkeys(("val_loss", "val_perplexity"), "number")
"""How tables write metrics, but for powers of ten."""


def engineering(value: float) -> str:
    """A number with an SI prefix: 1.5 G."""
    scale, prefix = si(value)
    return f"{value / scale:.3g} {prefix}"


def si(value: float) -> tuple[float, str]:
    """The largest SI prefix that leaves a number at least 1, as the factor that it stands for and its letter."""
    scales = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next(((scale, prefix) for scale, prefix in scales if value >= scale), (1.0, ""))


def shortest(value: str) -> str:
    """A setting's value as a fraction, 1/64, where that is shorter than the decimal; as it is if it is no number."""
    try:
        number = float(value)
    except ValueError:
        return value
    decimal = f"{number:g}" if float(f"{number:g}") == number else value
    parts = round(1 / number) if number and math.isfinite(number) else 0
    fraction = f"1/{parts}"
    return fraction if parts > 1 and 1 / parts == number and len(fraction) < len(decimal) else decimal


def amount(metric: str, value: float) -> str:
    """A value of a metric, accuracies in per cent."""
    return f"{100 * value:.4g} %" if metric.endswith("accuracy") else f"{value:.4g}"


def color(algorithm: str) -> str:
    """The colour of a recipe, by its name; recipes not in `COLORS` share one."""
    return COLORS.get(algorithm, OTHERS)
