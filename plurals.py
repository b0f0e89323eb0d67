"""Numbers with their nouns, for the messages of every layer."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 video`, `1,000 videos`; what is said of them may follow the noun: `counted(n, "video is", "videos are")`.

    Args:
        one: behind 1; many: behind any other number, by default `one` with an s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
