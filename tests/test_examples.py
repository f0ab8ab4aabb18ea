"""The example networks and the example loss of docs/extending.md, added to a copy of the template as the page says."""

import re
from pathlib import Path

import pytest

from mistakes import TEMPLATE
from test_template import copy_of_template, run

PAGE = TEMPLATE / "docs" / "extending.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs/extending.md is not written yet")

CHECK_NETWORK = """
import torch
from core.errors import UserError
from models import get_model

network = get_model({name!r}, 1000, "none")
assert sum(p.numel() for p in network.parameters()) == {n_parameters}
assert network(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 1000)
try:
    get_model({name!r}, 2, "imagenet")
except UserError as error:
    assert "no ImageNet weights" in str(error)
else:
    raise AssertionError("pretrained weights were not refused")
"""

CHECK_FOCAL = """
import torch
from config import Config
from core.errors import UserError
from data import DataLoaders
from losses import get_loss
from losses.focal import focal
from training.mixup import mix_batches

torch.manual_seed(0)
logits, labels = torch.randn(20, 4), torch.randint(0, 4, (20,))
log_p = logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
expected = (-((1 - log_p.exp()) ** 2) * log_p).mean()
assert torch.isclose(get_loss("focal")(logits, labels), expected)
assert torch.isclose(focal(logits, labels, gamma=0.0), torch.nn.functional.cross_entropy(logits, labels))
weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
weighted = get_loss("focal", weights)(logits, labels)
assert weighted != get_loss("focal")(logits, labels)
cross_entropy = torch.nn.functional.cross_entropy(logits, labels, weights)
assert torch.isclose(focal(logits, labels, weights, gamma=0.0), cross_entropy)
try:
    mix_batches(Config(mixup="mixup"), DataLoaders([], [], [], list("abcd")), get_loss("focal"), torch.device("cpu"))
except UserError as error:
    assert "takes probabilities" in str(error)
else:
    raise AssertionError("a loss that takes no soft labels was not refused")
"""


def add_example(project: Path, file: str, registry: str, *names: str) -> None:
    """Write a code block of the page into a file, and register what it defines."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (code,) = [block for block in blocks if block.startswith(f"# {file}\n")]
    (project / file).write_text(code, encoding="utf-8")
    init = (project / file).parent / "__init__.py"
    text = init.read_text(encoding="utf-8")
    (opening,) = re.findall(rf"^{registry}\b.*{{\n", text, re.MULTILINE)
    module = file.removesuffix(".py").replace("/", ".")
    imports = f"from {module} import {', '.join(names)}\n\n"
    entries = "".join(f'    "{name}": {name},\n' for name in names)
    init.write_text(text.replace(opening, imports + opening + entries), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "name", "n_parameters"),
    [
        ("models/MyMobileNet.py", "my_mobilenet", 3_504_872),
        ("models/SEResNet.py", "se_resnet50", 28_088_024),
        ("models/SEResNet.py", "se_resnext50", 27_559_896),
    ],
)
def test_the_example_networks_are_those_of_the_papers(tmp_path, file, name, n_parameters):
    project = copy_of_template(tmp_path / "project")
    add_example(project, file, "MODELS", name)
    run("-c", CHECK_NETWORK.format(name=name, n_parameters=n_parameters), cwd=project)


def test_the_example_loss_is_that_of_the_paper(tmp_path):
    project = copy_of_template(tmp_path / "project")
    add_example(project, "losses/focal.py", "LOSSES", "focal")
    run("-c", CHECK_FOCAL, cwd=project)
