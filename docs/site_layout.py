"""Gives the site the layout of the repository, so relative links work in both."""

from pathlib import Path

from mkdocs.structure.files import File

# The files of the site beside docs/. Scripts are plain files, the rest are pages.
OTHERS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "examples/*.py")


def on_files(files, config):
    """Moves the pages of docs/ to `docs/`, and adds the files beside it."""
    root = Path(config.config_file_path).parent
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for pattern in (*OTHERS, "docs/*.md"):
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            files.append(File(name, str(root), config.site_dir, use_directory_urls=True))
    return files
