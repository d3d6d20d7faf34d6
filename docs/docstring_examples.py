"""Shows the examples of docstrings as code, though docstrings do not indent them."""

import re
import textwrap

import griffe


class DocstringExamples(griffe.Extension):
    """Converts `Example:`, the last part of a docstring, to the section of griffe."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Indents the example of an object."""
        if obj.docstring is not None:
            before, *example = re.split(r"^Example:\n", obj.docstring.value, flags=re.MULTILINE)
            if example:
                indented = textwrap.indent(textwrap.dedent(example[0]), "    ")
                obj.docstring.value = f"{before}Examples:\n{indented}"
