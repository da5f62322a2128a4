"""Makes the pages that are not written by hand: the start from README.md, recipes from their parts, experiments from
results/README.md. MkDocs runs it (mkdocs-gen-files)."""

import inspect
import re
from pathlib import Path

import mkdocs_gen_files
import torch

from bench.algorithm import Algorithm
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.names import FOLDER, house_names
from bench.recipes import load_recipe
from bench.round.codes import Codes
from bench.suite.models.mlp import mlp
from bench.suite.models.resnet import resnet18

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def write(name: str, text: str) -> None:
    """Write a page."""
    with mkdocs_gen_files.open(name, "w") as file:
        file.write(text)


def copy(source: Path, name: str) -> None:
    """Add a file as it is."""
    with mkdocs_gen_files.open(name, "wb") as file:
        file.write(source.read_bytes())


def linked(text: str, here: Path, depth: int) -> str:
    """A page's text with its links to files of the repository led to where the site has them, or taken out.

    Args:
        here: the folder of the file that the text is from.
        depth: how many folders below the site's top the page lies.
    """
    up = "../" * depth

    def rewritten(match: re.Match[str]) -> str:
        mark, label, target = match[1], match[2], match[3]
        if target.startswith(("http", "#")):
            return match[0]
        path, _, anchor = target.partition("#")
        file = (here / path).resolve()
        inside = file.relative_to(ROOT).as_posix()
        if inside.startswith("docs/pages/"):
            return f"{mark}[{label}]({up}{inside.removeprefix('docs/pages/')}{'#' * bool(anchor)}{anchor})"
        if file.suffix == ".png":
            copy(file, inside)
            return f"{mark}[{label}]({up}{inside})"
        if inside == "examples/own_algorithm/README.md":
            return f"[{label}]({up}own_algorithm.md)"
        if inside == "results/README.md":
            return f"[{label}]({up}experiments/index.md)"
        if inside == "results/CLAIMS.md":
            return f"[{label}]({up}experiments/claims.md)"
        if inside == "README.md":
            return f"[{label}]({up}{'speed.md' if anchor == 'speed' else 'index.md'})"
        if file.name == "table.md" and file.parent.parent == RESULTS:
            return f"[{label}]({up}experiments/{file.parent.name}.md)"
        if inside.startswith("configs/algorithm/"):
            return f"[{label}]({up}recipes/{file.stem}.md)"
        return label if label.startswith("`") else f"`{inside}`"

    return re.sub(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)", rewritten, text)


def start() -> None:
    """The first page is the README; the tutorial is that of the example; other pages show figures of results."""
    write("index.md", linked((ROOT / "README.md").read_text("utf-8"), ROOT, 0))
    example = ROOT / "examples" / "own_algorithm"
    write("own_algorithm.md", linked((example / "README.md").read_text("utf-8"), example, 0))
    for page in (ROOT / "docs" / "pages").glob("*.md"):
        write(page.name, linked(page.read_text("utf-8"), page.parent, 0))


def experiments() -> list[str]:
    """A page per section of results/README.md, one of claims, and one per table. Returns lines of the navigation."""
    text = linked((RESULTS / "README.md").read_text("utf-8"), RESULTS, 1)
    first, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    titles = [section.partition("\n")[0] for section in sections]
    names = [re.sub(r"\W+", "-", title.lower()) for title in titles]
    contents = "\n".join(f"- [{title}]({name}.md)" for title, name in zip(titles, names, strict=True))
    write("experiments/index.md", f"{first}\n{contents}\n")
    for name, section in zip(names, sections, strict=True):
        write(f"experiments/{name}.md", f"# {section}")
    write("experiments/claims.md", linked((RESULTS / "CLAIMS.md").read_text("utf-8"), RESULTS, 1))
    nav = [f"    - [{title}](experiments/{name}.md)" for title, name in zip(titles, names, strict=True)]
    nav += ["    - [Claims](experiments/claims.md)", "    - [Rates](rates.md)"]
    nav.append("    - All tables")
    for folder in sorted(path.parent for path in RESULTS.glob("*/table.md")):
        full = folder / "table_full.md"
        further = sorted(set(folder.glob("*.md")) - {full, folder / "table.md"})
        tables = [file.read_text("utf-8") for file in (full if full.exists() else folder / "table.md", *further)]
        write(f"experiments/{folder.name}.md", "\n\n".join([f"# {folder.name}", *tables]))
        nav.append(f"        - [{folder.name}](experiments/{folder.name}.md)")
    return nav


def recipes() -> list[str]:
    """A page per recipe. Returns lines of the navigation."""
    layouts = {"FC-MNIST": Layout(mlp().named_parameters()), "ResNet18": Layout(resnet18().named_parameters())}
    for name in house_names():
        write(f"recipes/{name}.md", recipe_page(name, load_recipe(name), layouts))
    return [f"    - [{name}](recipes/{name}.md)" for name in house_names()]


def recipe_page(name: str, recipe: Algorithm, layouts: dict[str, Layout]) -> str:
    """What a recipe is made of, what it sends, and what it keeps."""
    yaml = (FOLDER / f"{name}.yaml").read_text("utf-8")
    told = " ".join(line[2:] for line in yaml.splitlines() if line.startswith("# "))
    parts = {
        "compressor": recipe.compressor, "feedback": recipe.feedback, "upload rule": recipe.rule,
        "aggregator": recipe.aggregator, "downlink": recipe.broadcast, "server's feedback": recipe.downlink_feedback,
    }  # fmt: skip
    rows = "\n".join(
        f"| {kind} | `{type(part).__name__}` | {_first_paragraph(part)} |" for kind, part in parts.items() if part
    )
    reference = _reference(recipe)
    bits = "\n".join(
        f"| {model} | {layout.num_parameters:,} | {upload:,} | {upload / layout.num_parameters:.3g} |"
        for model, layout in layouts.items()
        for upload in [_upload_bits(recipe, layout)]
    )
    kept = recipe.feedback.num_vectors + len(recipe.rule.memory(1, torch.zeros(1)))
    return f"""# {name}

{told}

{reference}

| part | | |
| :-- | :-- | :-- |
{rows}

**What a worker sends.** Bits of one upload of a normal gradient, floats and positions included:

| model | parameters d | bits | bits an entry |
| :-- | --: | --: | --: |
{bits}

**What it keeps.** {_vectors(kept)} a worker, between rounds{_besides(recipe)}.

**What a round takes.** {"Two backward passes" if recipe.rule.second_pass else "One backward pass"} a worker; \
{"it may skip its upload" if recipe.rule.adaptive else "each worker uploads in every round"}. Messages travel by \
{_collectives(recipe)}. Times of a round are in [Speed](../speed.md).

```yaml
{yaml.strip()}
```

**Results here:** {_results(name)}

`Trainer(strategy="{name}")`, `bench.CompressedAllReduce(model, "{name}")`\
{"" if recipe.rule.second_pass else f', `bench.CompressionHook(model, "{name}", optimizer)`'}, or \
`bitbudget train algorithm={name}`.
"""


def _first_paragraph(part: object) -> str:
    return " ".join((inspect.getdoc(type(part)) or "").split("\n\n")[0].split()).replace("|", "\\|")


def _reference(recipe: Algorithm) -> str:
    """The references in the head of the compressor's file, and of the rule's."""
    files = [inspect.getmodule(type(part)) for part in (recipe.compressor, recipe.rule)]
    texts = [" ".join((inspect.getdoc(file) or "").split()) for file in files if file]
    found = [text for text in texts if re.search(r"\b(19|20)\d\d\b", text)]
    return "\n\n".join(found)


def _upload_bits(recipe: Algorithm, layout: Layout) -> int:
    segments, vector = layout.segments(recipe.granularity), layout.vector
    gradient = torch.randn(1, len(vector), generator=torch.Generator().manual_seed(1)) * 0.01
    message = Codes(recipe, segments, vector).uplink.compress(gradient, segments, [Noise(0, 0, 0)])
    return int(message.num_bits) + recipe.compressor.offer_bits(segments, vector)


def _vectors(count: int) -> str:
    return {0: "Nothing", 1: "One vector of d floats"}.get(count, f"{count} vectors of d floats")


def _results(name: str) -> str:
    """Links to the tables of experiments in which it ran."""
    ran = sorted({label.parent.name for label in RESULTS.glob("*/*/") if re.split("[-,]", label.name)[0] == name})
    return ", ".join(f"[{experiment}](../experiments/{experiment}.md)" for experiment in ran) or "none yet"


def _besides(recipe: Algorithm) -> str:
    return ", and the parameters of up to ten past rounds, shared by all" if recipe.rule.second_pass else ""


def _collectives(recipe: Algorithm) -> str:
    ways = ["`gather`", *(["`sharded`"] if recipe.entrywise else []), *(["`allreduce`"] if recipe.adds_up else [])]
    return " or ".join(ways)


def navigation(of_recipes: list[str], of_experiments: list[str]) -> None:
    """Write SUMMARY.md, from which the navigation is made."""
    lines = [
        "- [Start](index.md)", "- [Quickstart](quickstart.md)", "- [In your own code](use.md)",
        "- [Does it pay?](pay.md)", "- [Recipes](recipes.md)", *of_recipes, "- [What is counted](counted.md)",
        "- [Several machines](machines.md)", "- [Add an algorithm](add.md)",
        "    - [In your own repository](own_algorithm.md)", "- [Experiments](experiments/index.md)",
        *of_experiments, "- [Speed](speed.md)", "- [Design](design.md)", "- [Limits](limits.md)", "- [API](api.md)",
    ]  # fmt: skip
    write("SUMMARY.md", "\n".join(lines) + "\n")


start()
navigation(recipes(), experiments())
