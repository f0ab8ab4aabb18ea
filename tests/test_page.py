"""The report in a browser: nothing from elsewhere, no sideways scrolling, light and dark."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from test_template import QUICK, copy_of_template, run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
PROBE = """<script>
const shown = [...document.images].filter(image => image.loading !== "lazy");
document.title = JSON.stringify({
  wide: document.documentElement.scrollWidth - innerWidth, dark: getComputedStyle(document.body).backgroundColor,
  broken: shown.filter(image => image.complete && !image.naturalWidth).length, images: shown.length,
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The report of a short run, with a script added that writes into the title what is to be known."""
    project = copy_of_template(tmp_path_factory.mktemp("page") / "project")
    run("main.py", *QUICK, "--epochs", "2", "--trackers", "none", "--run-name", "a", cwd=project)
    report = project / "checkpoint" / "a" / "report.html"
    (report.parent / "probed.html").write_text(
        report.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>")
    )
    return report.parent / "probed.html"


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [500, 900, 1400])
def test_the_report_opens_in_a_browser(page, tmp_path, width):
    """A window of Chromium is at least 500 pixels wide."""
    titles = []
    for scheme in (1, 0):  # light, dark
        words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
        words += ["--disable-background-networking", "--disable-component-update", "--disable-quic"]
        words += [
            f"--user-data-dir={tmp_path / str(scheme)}",
            f"--window-size={width},2000",
            "--virtual-time-budget=5000",
        ]
        words += [f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", page.as_uri()]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)}
        )
        titles.append(re.findall(r"<title>(\{.*?\})</title>", done.stdout)[0].replace("&quot;", '"'))
    for title in titles:
        assert re.search(r'"wide":(-\d+|0),', title), title
        assert '"broken":0,' in title
        assert '"images":5' in title
    light, dark = (re.findall(r'"dark":"([^"]+)"', title)[0] for title in titles)
    assert light != dark
