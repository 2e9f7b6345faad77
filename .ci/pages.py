"""Tables that programs write into pages, between two marks."""

END = "<!-- to here -->\n"


def write_between(page, program, text):
    """Puts `text` between the marks of `program`.

    Args:
        page: Path of a page with `<!-- PROGRAM writes from here -->`.
        program: The name there.
        text: Ends with a line break.
    """
    start = f"<!-- {program} writes from here -->\n"
    before, _, rest = page.read_text().partition(start)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{start}{text}{END}{after}")
