"""The documentation site: it is built without a warning, and its reference is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts.docs_site import api_page, build, commands_page, metrics_page, problems_page, settings_page

from tests.support.node import REPO


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("docs") / "site")


def test_site_has_every_page(site: Path) -> None:
    pages = {path.relative_to(REPO / "docs").with_suffix(".html") for path in REPO.glob("docs/**/*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    decisions = Path("decisions")
    assert {page for page in pages if page.name != "README.html"} <= built
    assert decisions / "index.html" in built or decisions / "README.html" in built


def test_site_links_lead_somewhere(site: Path) -> None:
    missing = []
    for page in site.rglob("*.html"):
        for link in re.findall(r'href="([^"#?:]+)[#"?]', page.read_text()):
            if page.name != "404.html" and not (page.parent / link).exists():
                missing.append((str(page.relative_to(site)), link))
    assert missing == []


def test_reference_names_what_exists() -> None:
    assert "`maoctl dataset diff`" in commands_page()
    assert "`MAO_LATE_AFTER` | `300` | after its tick" in settings_page()
    assert "`mao_runs_total`" in metrics_page()
    assert "`agreement-needed`" in problems_page()
    assert "| `POST /pipeline/run` |" in api_page()
