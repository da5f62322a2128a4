"""Colours of algorithms and titles of quantities, shared by all figures, panels and the dashboard."""

COLORS = {  # safe for colour-blind readers: those of Okabe and Ito, and the farthest from them that a search found
    "sgd": "#555555",
    "sparse": "#0072B2",
    "lasg": "#56B4E9",
    "sasg": "#332288",
    "signsgd": "#800AE6",
    "signsgd_mv": "#E69F00",
    "signum": "#E6C4CF",
    "signum_mv": "#A8D69E",
    "ef_signsgd": "#CC79A7",
    "sparse_signsgd": "#D55E00",
    "gspar": "#009E73",
    "gspar_closed": "#0AE669",
    "unisp": "#7E61E6",
    "random_k": "#0A0A1E",
    "qsgd": "#4D0A0A",
    "terngrad": "#8C2C0A",
    "powersgd": "#888848",
    "natural": "#884838",
    "half": "#885888",
    "dgc": "#78DC3C",
    "ef21": "#8C8CF0",
    "diana": "#643CB4",
    "lag": "#C8C8F0",
    "laq": "#8C288C",
}
OTHERS = "#56275F"

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
    "gradient_norm": "gradient norm",
    "compression_error": "compression error",
    "bits_over_bound": "wire bits over information bound",
    "message_bits": "bits a message",
    "ridge": "λ₂ =",
    "factor": "shrunk by",
    "threshold": "shrunk below",
    "num_byzantine": "Byzantine workers f",
    "workers": "workers M",
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


def engineering(value: float) -> str:
    """A number with an SI prefix: 1.5 G."""
    scales = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    scale, prefix = next(((s, p) for s, p in scales if value >= s), (1.0, ""))
    return f"{value / scale:.3g} {prefix}"


def color(algorithm: str) -> str:
    """The colour of a recipe, by its name; recipes not in `COLORS` share one."""
    return COLORS.get(algorithm, OTHERS)
