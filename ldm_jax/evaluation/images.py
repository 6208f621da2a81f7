"""Which images of a split are measured."""


def number_of(asked: int, split: str, there: int) -> int:
    """How many images are measured of a split that has so many: `asked`, or all of them; prints
    that there are fewer."""
    if there < asked:
        print(f"data: {split} has {there} images, fewer than --num={asked}; all are measured")
    return min(asked, there)
