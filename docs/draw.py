"""Draw the figures of the documents.

python docs/draw.py                         all of them but docs/peers.png; trains on the demo, about two minutes
python docs/draw.py --diagrams              only template/docs/layers.svg and template/docs/image_path.svg
python docs/draw.py --to DIR --epochs 1     into another folder; any other option goes to main.py

The diagrams are drawn from the imports and definitions in the code. docs/report.png is a screenshot and needs Chromium.
docs/peers.png comes from benchmarks/peers.py.
"""

import argparse
import ast
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "template"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH = 920

# An image's way: step, what it is after the step, where the code of the step is.
STEPS = (
    ("file", "JPEG, PNG, …", "data/imagefolder.py", "imagefolder"),
    ("split", "train, val or test", "data/splits.py", "complete_splits"),
    ("decode", "upright RGB image", "data/image_io.py", "read_image"),
    ("transform", "resize, crop, imgaug", "data/transformation/__init__.py", "get_transforms"),
    ("batch", "uint8 (N, 3, S, S)", "data/loaders.py", "make_loader"),
    ("normalize", "float (N, 3, S, S)", "models/classifier.py", "Normalize"),
    ("backbone", "features (N, F)", "models/classifier.py", "Classifier"),
    ("cache", "if frozen: computed once", "training/feature_cache.py", "cache_features"),
    ("head", "logits (N, C)", "models/classifier.py", "Classifier"),
    ("loss", "scalar", "losses/__init__.py", "get_loss"),
)


class Svg:
    """An SVG drawing on a white card."""

    def __init__(self, height: int) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L8 4L0 8z" fill="#8b98a5"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#fff"/>',
        ]

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw an arrow from the first point to the second."""
        line = f'x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"'
        self.parts.append(f'<line {line} stroke="#8b98a5" stroke-width="1.2" marker-end="url(#arrow)"/>')

    def box(self, x: float, y: float, width: float, height: float, title: str, lines: list[str]) -> None:
        """Draw a box with a title and lines of small text."""
        shape = f'x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6"'
        self.parts.append(f'<rect {shape} fill="#eef4fb" stroke="#6b8fb5"/>')
        self.text(x + width / 2, y + 19, title, 'font-size="14" font-weight="bold" fill="#1c2024"')
        for i, line in enumerate(lines):
            self.text(x + width / 2, y + 36 + 14 * i, line, 'font-size="11" fill="#5f6b76"')

    def text(self, x: float, y: float, text: str, style: str) -> None:
        """Draw text that is centred on x."""
        self.parts.append(f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" {style}>{escape(text)}</text>')

    def save(self, path: Path) -> None:
        """Write the drawing to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*self.parts, "</svg>"]) + "\n", encoding="utf-8")


def draw_layers(path: Path) -> None:
    """Draw the packages layer by layer, scripts first, each with its modules and the packages that it imports."""
    sys.path.insert(0, str(ROOT / "tests"))
    from test_layers import LAYERS, MODULES, imported

    modules: dict[str, set[str]] = {}
    imports: dict[str, set[str]] = {}
    for name, file in MODULES.items():
        package, *rest = name.split(".")
        modules.setdefault(package, set()).update(rest[:1])
        imports.setdefault(package, set()).update(other.partition(".")[0] for other in imported(file))

    gap, y = 12, 12
    boxes: dict[str, tuple[float, float, float, float, list[str]]] = {}
    for layer in reversed(LAYERS):
        packages = sorted(layer & set(modules))
        if not packages:
            continue
        width = min(440, (WIDTH - gap) / len(packages) - gap)
        x = (WIDTH - len(packages) * (width + gap) + gap) / 2
        lines = {}
        for package in packages:
            names = ", ".join(sorted(modules[package], key=str.lower))
            direct = ", ".join(sorted(direct_imports(package, imports)))
            lines[package] = textwrap.wrap(names, int(width / 5.8))
            lines[package] += textwrap.wrap(f"→ {direct}" if direct else "", int(width / 5.8))
        height = 32 + 14 * max(len(text) for text in lines.values())
        for package in packages:
            boxes[package] = (x, y, width, height, lines[package])
            x += width + gap
        y += height + 30

    svg = Svg(y - 30 + gap)
    for package in boxes:
        x1, y1, width1, height1, _ = boxes[package]
        for other in sorted(direct_imports(package, imports)):
            x2, y2, width2, *_ = boxes[other]
            if y1 < y2 < y1 + height1 + 31:  # the row below; all imports are in the text of the box
                svg.arrow(x1 + width1 / 2, y1 + height1, x2 + width2 / 2, y2)
    for package, (x, y, width, height, lines) in boxes.items():
        svg.box(x, y, width, height, package, lines)
    svg.save(path)


def direct_imports(package: str, imports: dict[str, set[str]]) -> set[str]:
    """Return the imports of a package without those that it also reaches through another one."""
    others = imports[package] - {package}
    direct = set(others)
    for other in others:
        direct -= reachable(other, imports) - {other}
    return direct


def reachable(package: str, imports: dict[str, set[str]]) -> set[str]:
    """Return all packages that a package imports, directly or through others."""
    found: set[str] = set()
    pending = [package]
    while pending:
        for other in imports[pending.pop()] - found:
            found.add(other)
            pending.append(other)
    return found


def draw_image_path(path: Path) -> None:
    """Draw the steps from an image file to the loss, each with the function or class that does it.

    Raises:
        ValueError: a function or class is not where `STEPS` expects it.
    """
    columns, width, height, gap = 5, 164, 80, 18
    svg = Svg(2 * height + 78)
    for i, (step, result, file, name) in enumerate(STEPS):
        tree = ast.parse((TEMPLATE / file).read_text(encoding="utf-8"))
        if name not in [getattr(node, "name", None) for node in tree.body]:
            raise ValueError(f"{file} defines no {name}; update STEPS in docs/draw.py")
        x = gap + i % columns * (width + gap)
        y = gap + i // columns * (height + 42)
        svg.box(x, y, width, height, step, [result, name, file.replace("/__init__.py", "/")])
        if i % columns:
            svg.arrow(x - gap, y + height / 2, x, y + height / 2)
        elif i:  # from the end of one row to the start of the next
            svg.arrow(WIDTH - gap - width / 2, y - 42, x + width / 2, y)
    svg.save(path)


def draw_run(to: Path, options: list[str]) -> None:
    """Train on the demo in a copy of the template, then save its figures and a screenshot of its report."""
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "template"
        ignore = shutil.ignore_patterns("dataset", "checkpoint", ".*", "__pycache__")
        shutil.copytree(TEMPLATE, copy, ignore=ignore)
        words = ["--trackers", "none", "--run-name", "demo", *options]
        subprocess.run([sys.executable, copy / "main.py", *words], check=True)
        run = copy / "checkpoint" / "demo"
        save_small(run / "train_batch.png", to / "train_batch.png")
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            print("report.png is not drawn: it needs Chromium", file=sys.stderr)
            return
        words = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/chromium",
        ]
        words += [
            "--window-size=1080,640",
            f"--screenshot={folder}/report.png",
            (run / "report.html").as_uri(),
        ]
        subprocess.run([browser, *words], check=True, timeout=120, capture_output=True)
        save_small(Path(folder) / "report.png", to / "report.png")


def save_small(source: Path, target: Path) -> None:
    """Save an image with a palette of 256 colours, in a fraction of the bytes."""
    with Image.open(source) as image:
        image.convert("RGB").quantize(256).save(target, optimize=True)


def main() -> None:
    """Draw the diagrams and, without --diagrams, the figures of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=ROOT, help="folder that gets docs/ and template/docs/")
    parser.add_argument("--diagrams", action="store_true", help="draw no figures of a run")
    options, others = parser.parse_known_args()
    draw_layers(options.to / "template" / "docs" / "layers.svg")
    draw_image_path(options.to / "template" / "docs" / "image_path.svg")
    if not options.diagrams:
        draw_run(options.to / "docs", others)


if __name__ == "__main__":
    main()
