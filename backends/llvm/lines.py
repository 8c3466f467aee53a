"""Rows and columns of a product whose operands are read where they stand, as tiles see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lines:
    """Rows or columns as tiles see them: a tile takes `size` neighbours within a line of `length`; the last one of a line
    begins earlier where they would not fit."""

    total: int
    length: int
    size: int

    @property
    def tiles_of_line(self) -> int:
        return -(-self.length // self.size)

    @property
    def tiles(self) -> int:
        return self.total // self.length * self.tiles_of_line

    @property
    def is_even(self) -> bool:
        """Whether no tile has to begin earlier."""
        return self.length % self.size == 0

    def start(self, number: int) -> int:
        """Where in its line a tile begins to read."""
        return min(number * self.size, self.length - self.size)
