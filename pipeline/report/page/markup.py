"""HTML and SVG from Python, escaped unless it is already markup."""

from html import escape

_VOID = frozenset({"br", "img", "link", "meta", "wbr"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(element: str, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """One element. A child that is no `Markup` is escaped; `None` and `False` leave a child or an attribute out.

    A trailing underscore is dropped from attribute names and the others become hyphens: `class_`, `stroke_width`.
    """
    opened = "".join([f"<{element}", *(_attribute(name, value) for name, value in attributes.items()), ">"])
    if element in _VOID:
        return Markup(opened)
    return Markup(f"{opened}{join(*children)}</{element}>")


def join(*children: str | None) -> Markup:
    """Children one after the other, escaped like those of `tag`."""
    return Markup("".join(_child(child) for child in children if child is not None))


def _child(child: str) -> str:
    return child if isinstance(child, Markup) else escape(child, quote=False)


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    key = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return f' {key}="{escape(text)}"'
