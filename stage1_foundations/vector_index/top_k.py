"""The k smallest of many distances, without sorting them: a small sorted list and a threshold."""

import numpy as np

from stage1_foundations.vector_index.kernels import distance, four_distances, jit, prefetch_row

AHEAD = 32  # rows between the one that is computed and the one that is asked for


@jit
def push(best, ids, value, identity):
    """Insert into the sorted lists `best` and `ids` (k,) a value below their last one; of equal values the first stays.

    The caller compares with `best[-1]`, because hardly any value gets past it.
    """
    place = best.shape[0] - 1
    while place > 0 and best[place - 1] > value:
        best[place] = best[place - 1]
        ids[place] = ids[place - 1]
        place -= 1
    best[place] = value
    ids[place] = identity


@jit
def push_rows(vectors, first, end, query, squared, best, rows):
    """Push the distances of the rows `first` to `end - 1`, four at a time, with the row's number as id.

    The processor notices by itself that rows are read in order, but starts anew in every list and every page of memory;
    so rows are asked for ahead (beyond the end of the array, too: that is allowed and does nothing).

    Args:
        vectors: (N, W) padded rows. query: (W,).
        best, rows: (k,) sorted; filled with inf and -1 at the start.
    """
    last = best.shape[0] - 1
    fours = first + (end - first) // 4 * 4
    for row in range(first, fours, 4):
        for ahead in range(row + AHEAD, row + AHEAD + 4):
            prefetch_row(vectors, ahead)
        a, b, c, d = four_distances(vectors, row, row + 1, row + 2, row + 3, query, squared)
        if min(min(a, b), min(c, d)) < best[last]:
            for i, near in enumerate((a, b, c, d)):
                if near < best[last]:
                    push(best, rows, near, row + i)
    for row in range(fours, end):
        near = distance(vectors, row, query, squared)
        if near < best[last]:
            push(best, rows, near, row)


@jit
def push_block(block, first, best, ids):
    """Push every column of a block of distances; column j is id `first + j`.

    Args:
        block: (Q, B) distances.
        best, ids: (Q, k) sorted; filled with inf and -1 at the start.

    Nearly all values lie above the threshold, so 64 are compared at once (their minimum is a few vector instructions)
    and looked at one by one only where one is below.
    """
    width = block.shape[1]
    for i in range(block.shape[0]):
        row, nearest, names = block[i], best[i], ids[i]
        for start in range(0, width, 64):
            end = min(start + 64, width)
            smallest = np.float32(np.inf)
            for j in range(start, end):
                smallest = min(smallest, row[j])
            if smallest < nearest[-1]:
                for j in range(start, end):
                    if row[j] < nearest[-1]:
                        push(nearest, names, row[j], first + j)
