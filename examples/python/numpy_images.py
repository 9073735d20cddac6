"""Filter images (numpy arrays) in worker processes; arrays travel through shared memory.

An array is copied once, into shared memory. The worker sees it there, and so does this process see the
result: as a read-only array that gives the memory back when it is dropped.
"""

import time

import numpy as np

from miniflow import Executor

SIZE = 768


def photograph(seed: int) -> np.ndarray:
    """Something like a photograph: a few light spots, and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    image = random.normal(20, 8, (SIZE, SIZE))
    for _ in range(6):
        cx, cy, radius = [*random.uniform(0, SIZE, 2), random.uniform(30, 150)]
        image += 200 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
    return np.clip(image, 0, 255).astype(np.uint8)


def blur(image: np.ndarray, radius: int) -> np.ndarray:
    """The mean of the square around each pixel, by running sums along both axes."""
    width = 2 * radius + 1
    mean = np.pad(image.astype(np.float32), radius, mode="edge")
    for axis in (0, 1):
        sums = np.cumsum(mean, axis=axis, dtype=np.float64)
        sums = np.insert(sums, 0, 0, axis=axis)
        high = np.take(sums, range(width, sums.shape[axis]), axis=axis)
        low = np.take(sums, range(sums.shape[axis] - width), axis=axis)
        mean = (high - low) / width
    return mean.astype(np.uint8)


def edges(image: np.ndarray, radius: int) -> np.ndarray:
    """Where the blurred image changes."""
    smooth = blur(image, radius).astype(np.int16)
    dy, dx = np.gradient(smooth)
    return np.hypot(dx, dy).clip(0, 255).astype(np.uint8)


def main() -> None:
    images = [photograph(seed) for seed in range(8)]
    # numpy is imported once, before the workers are forked.
    with Executor(max_workers=2, preload=["numpy"]) as executor:
        start = time.perf_counter()
        found = list(executor.map(edges, images, [4] * len(images)))
        spent = time.perf_counter() - start
    for image, result in zip(images, found):
        assert result.shape == image.shape
        assert np.array_equal(result, edges(image, 4))
        assert 0 < result.mean() < image.mean()
    assert not found[0].flags.writeable, "copy() it to write to it"
    print(f"{len(images)} images of {SIZE} x {SIZE} in {spent * 1000:.0f} ms")
    print("ok")


if __name__ == "__main__":
    main()
