"""Shows the examples of docstrings as code: they are written without indentation there."""

import re
import textwrap

import griffe


class DocstringExamples(griffe.Extension):
    """Makes `Example:`, the last part of a docstring, the section that griffe knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Indents the example of an object."""
        if obj.docstring is not None:
            before, *example = re.split(r"^Example:\n", obj.docstring.value, flags=re.MULTILINE)
            if example:
                indented = textwrap.indent(textwrap.dedent(example[0]), "    ")
                obj.docstring.value = f"{before}Examples:\n{indented}"
