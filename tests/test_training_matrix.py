"""The table of features and backends in docs/training.md names tests that exist."""

import re

from tests.processes import ROOT


def test_training_page_names_existing_tests():
    page = (ROOT / "docs/training.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|") and "`test_" in line]
    named = set(re.findall(r"`(test_\w+)`", "".join(rows)))
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    defined = set(re.findall(r"^def (test_\w+)\(", "\n".join(texts), re.MULTILINE))
    assert len(named) > 15 and named <= defined, sorted(named - defined)
    assert all(line.count("|") == 5 for line in rows)
