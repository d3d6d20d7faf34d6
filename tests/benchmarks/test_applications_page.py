"""The section of docs/applications.md about other targets."""

import pytest


@pytest.fixture
def writer(script):
    return script("applications_page")


def result(target, mismatches):
    kernels = {"tflite-micro": "tflite-micro", "litert-arm64": "arm64"}[target]
    found = {kernels: mismatches, "reference": 5, "default": 50}
    compared = {"kernels": kernels, "samples": 4, "tensors": 7, "elements": 1000}
    return {"size": 96, "targets": {target: {**compared, "mismatches": found}}}


def test_renew_section_replaces_the_rows_of_measured_models(writer, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n| model | x |\n| --- | --- |\n| One | 1 |\n")
    writer.renew_section(page, {"One": result("tflite-micro", 3), "Two": {"failed": "no"}})
    writer.renew_section(page, {"Two": result("litert-arm64", 0)})
    writer.renew_section(page, {"One": result("tflite-micro", 0)})
    above, _, section = page.read_text().partition(writer.SECTION)
    assert above == "# Page\n\n| model | x |\n| --- | --- |\n| One | 1 |\n\n"
    assert [line for line in section.splitlines() if line.startswith("| ")][2:] == [
        "| One | 96 | `tflite-micro` | 4 | 7 | 1,000 | 0 | 0.50 % | 5.00 % |",
        "| Two | 96 | `litert-arm64` | 4 | 7 | 1,000 | 0 | 0.50 % | 5.00 % |",
    ]
