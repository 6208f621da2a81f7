"""Random numbers of one example on the host: named streams that depend on nothing but the seed,
the example's global position in the run, and the name of their use."""

import hashlib

import numpy as np
from jaxtyping import Float64, Int64


class RandomStream:
    """The stream of one (seed, position, name); every call takes its next numbers.

    The three are hashed into the key of a Philox generator (Salmon 2011), of which only the raw
    words are used: NumPy fixes these for ever, which it does not promise for its distributions. So
    whole numbers are the same in any process, order and version; of `normals` the last bit may
    differ between machines.
    """

    def __init__(self, seed: int, position: int, name: str) -> None:
        if not name:
            raise ValueError("a stream has no name; give every use of randomness its own")
        told = f"{int(seed)}/{int(position)}/{name}"
        digest = hashlib.sha256(told.encode()).digest()
        self._philox = np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8"))

    def below(self, n: int) -> int:
        """A whole number, uniform over 0..n-1.

        Raises:
            ValueError: n is below 1.
        """
        if n < 1:
            raise ValueError(f"no whole number is below {n} and at least 0; n must be at least 1")
        # The bias of the remainder is below n / 2**64.
        return int(self._philox.random_raw()) % n

    def within(self, low: int, high: int) -> int:
        """A whole number, uniform over low..high, both included."""
        return low + self.below(high - low + 1)

    def uniform(self, low: float | int = 0.0, high: float | int = 1.0) -> float:
        """A number, uniform in [low, high)."""
        return low + (high - low) * ((int(self._philox.random_raw()) >> 11) * 2.0**-53)

    def chance(self, p: float) -> bool:
        """True with probability `p`."""
        return self.uniform() < p

    def uniforms(self, shape: int | tuple[int, ...]) -> Float64[np.ndarray, "..."]:
        """Independent numbers, uniform in [0, 1)."""
        return (self._words(int(np.prod(shape, dtype=int))) * 2.0**-53).reshape(shape)

    def normals(self, shape: int | tuple[int, ...]) -> Float64[np.ndarray, "..."]:
        """Independent standard normal numbers (Box and Muller 1958)."""
        n = int(np.prod(shape, dtype=int))
        pairs = -(-n // 2)
        words = self._words(2 * pairs)
        # From (0, 1], so that the logarithm is finite; the least is 2**-53, 8.6 deviations off.
        radius = np.sqrt(-2.0 * np.log((words[:pairs] + 1) * 2.0**-53))
        angle = words[pairs:] * (2.0 * np.pi * 2.0**-53)
        made = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return made[:n].reshape(shape)

    def order(self, n: int) -> Int64[np.ndarray, " n"]:
        """The numbers 0..n-1 in random order."""
        return np.argsort(self._philox.random_raw(n), kind="stable")

    def _words(self, n: int) -> Float64[np.ndarray, " n"]:
        """Whole numbers below 2**53."""
        return (self._philox.random_raw(n) >> np.uint64(11)).astype(np.float64)
