"""Makes the README's pictures of a run's page: `python experiments/report_images.py`.

Trains the default job with the greedy policy by the real command, and takes `report.html` in headless
Chromium, down to the decisions. Needs the extra `dev` and `chromium` on the PATH; the letters are
Inter's where that font is installed, the system's elsewhere.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from PIL import Image
from playwright.sync_api import sync_playwright

from siren.analysis.page.write import REPORT

RUN = ("--policy", "greedy", "--update-rule", "cas", "--channel", "s3")
WIDTH = 1240
END = "document.getElementById('decisions').closest('section').getBoundingClientRect().top"


@dataclass(frozen=True)
class ImagesConfig:
    """Make the README's pictures of a run's page."""

    out: Path = Path("docs/images")
    """Where the pictures go."""

    budget: str = "2.00"
    """Dollars of the run."""

    seed: int = 0
    """Seed of the run."""


def main(config: ImagesConfig) -> int:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = ("--budget", config.budget, "--seed", str(config.seed), *RUN, "--out", str(run))
        subprocess.run([sys.executable, "-m", "siren.run", *options], check=True)
        config.out.mkdir(parents=True, exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            for scheme in ("light", "dark"):
                take(browser, (run / REPORT).as_uri(), scheme, config.out / f"report-{scheme}.png")
            browser.close()
    return 0


def take(browser: Any, address: str, scheme: str, path: Path) -> None:
    """Takes the top of a page, in 256 colours that are spread over all that it has: rare ones stay."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme=scheme)
    page.goto(address)
    page.locator("svg").last.wait_for()
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": page.evaluate(END) - 20}
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip)))
    few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(ImagesConfig)))
