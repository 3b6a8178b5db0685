"""The compiled half of HNSW: a walk on one layer, the choice of neighbours, insertion.

Three ideas carry the speed, none of them changes a result:

- **The beam.** The paper keeps two heaps, C (to visit) and W (best so far). Whatever falls out of W is farther than
  all of W and would never be visited, so one sorted list of `ef` entries with a mark "expanded" does the work of both.
- **Epochs.** `visited[node] == epoch` instead of a set: to forget all marks, count the epoch up by one.
- **Three passes over a node's neighbours.** First mark the new ones and prefetch their rows, then compute, four at a
  time, then sort in: the loads of up to 32 rows overlap instead of being waited for one after the other.

Layout: node i's neighbours at layer 0 are row i of `base_links`; at layer l >= 1, row `first_upper[i] + l - 1` of
`upper_links`. Rows end with -1. Ids are int32.

Source: Malkov and Yashunin 2018, "Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs", algorithms 1 to 5.
"""

import numpy as np

from stage1_foundations.vector_index.kernels import distance, distance_between, four_distances, jit, prefetch_row


@jit
# exercise: vector_index.beam_insert
def beam_insert(beam_distances, beam_ids, count, node_distance, node):
    """Put a node into the sorted beam; when the beam is full, its farthest entry drops out.

    Args:
        beam_distances, beam_ids: (ef,), sorted by distance, the first `count` entries used.
        count: entries in the beam.

    Returns:
        The place of the new entry, or -1 if the beam is full and the node no nearer than its last entry.
    """
    size = beam_ids.shape[0]
    if count == size and not node_distance < beam_distances[size - 1]:
        return -1
    place = min(count, size - 1)
    while place > 0 and beam_distances[place - 1] > node_distance:
        beam_distances[place] = beam_distances[place - 1]
        beam_ids[place] = beam_ids[place - 1]
        place -= 1
    beam_distances[place] = node_distance
    beam_ids[place] = node
    return place
# end exercise


@jit
def distances_to(query, vectors, squared, nodes, count, out):
    """Distances of the first `count` of `nodes` into `out`, four at a time."""
    fours = count // 4 * 4
    for j in range(0, fours, 4):
        a, b, c, d = four_distances(vectors, nodes[j], nodes[j + 1], nodes[j + 2], nodes[j + 3], query, squared)
        out[j], out[j + 1], out[j + 2], out[j + 3] = a, b, c, d
    for j in range(fours, count):
        out[j] = distance(vectors, nodes[j], query, squared)


@jit
def search_layer(query, vectors, squared, links, rows, level, visited, epoch, beam_distances, beam_ids, count):
    """Algorithm 2: walk towards the query on one layer, keeping the nearest nodes seen in the beam.

    Args:
        query: (W,) padded.
        vectors: (N, W) padded rows.
        links, rows, level: the layer's neighbour table; node i's row is `i` at level 0, else `rows[i] + level - 1`.
        visited, epoch: a node with `visited[node] == epoch` has been seen.
        beam_distances, beam_ids: (ef,) sorted; the first `count` are the entry points.

    Returns:
        (entries in the beam, distances computed).
    """
    for i in range(count):
        visited[beam_ids[i]] = epoch
    fresh, near = np.empty(links.shape[1], np.int32), np.empty(links.shape[1], np.float32)
    computed, position = 0, 0
    while position < count:
        node = beam_ids[position]
        if node < 0:  # expanded entries are kept as ~node
            position += 1
            continue
        beam_ids[position] = ~node
        if level == 0 and position + 1 < count and beam_ids[position + 1] >= 0:
            prefetch_row(links, beam_ids[position + 1])  # probably the next one
        row = node if level == 0 else rows[node] + level - 1
        new = 0
        for j in range(links.shape[1]):
            neighbour = links[row, j]
            if neighbour < 0:
                break
            if visited[neighbour] != epoch:
                visited[neighbour] = epoch
                prefetch_row(vectors, neighbour)
                fresh[new] = neighbour
                new += 1
        computed += new
        distances_to(query, vectors, squared, fresh, new, near)
        for j in range(new):
            place = beam_insert(beam_distances, beam_ids, count, near[j], fresh[j])
            if place >= 0:
                count = min(count + 1, beam_ids.shape[0])
                position = min(position, place)
    for i in range(count):
        beam_ids[i] = ~beam_ids[i]  # every entry was expanded
    return count, computed


@jit
def greedy_descent(query, vectors, squared, upper_links, rows, entry, top, bottom):
    """Walk to the nearest node on every layer from `top` down to `bottom + 1`: a beam of one.

    Returns:
        (node, its distance, distances computed).
    """
    node, near, computed = entry, distance(vectors, entry, query, squared), 1
    for level in range(top, bottom, -1):
        moved = True
        while moved:
            moved = False
            row = rows[node] + level - 1
            for j in range(upper_links.shape[1]):
                neighbour = upper_links[row, j]
                if neighbour < 0:
                    break
                candidate = distance(vectors, neighbour, query, squared)
                computed += 1
                if candidate < near:
                    node, near, moved = neighbour, candidate, True
    return node, near, computed


@jit
# exercise: vector_index.select_neighbours
def select_neighbours(vectors, squared, ids, distances, count, limit, chosen):
    """Algorithm 4: keep a candidate only if it is nearer to the base than to every neighbour kept so far.

    So the links point in different directions, and a walk can leave a cluster. (Without the paper's options
    extendCandidates and keepPrunedConnections, as in hnswlib.)

    Args:
        ids, distances: candidates and their distances to the base, nearest first, `count` of them.
        limit: most neighbours wanted.
        chosen: receives the ids, filled up with -1.

    Returns:
        How many were chosen.
    """
    kept = 0
    for i in range(count):
        if kept == limit:
            break
        good = True
        for j in range(kept):
            if distance_between(vectors, ids[i], chosen[j], squared) < distances[i]:
                good = False
                break
        if good:
            chosen[kept] = ids[i]
            kept += 1
    chosen[kept:] = -1
    return kept
# end exercise


@jit
def connect(vectors, squared, links, row, base, node, limit, work_ids, work_distances):
    """Add a link from `base` (row `row`) to `node`; a list that overflows is chosen again by algorithm 4."""
    width = 0
    while width < limit and links[row, width] >= 0:
        width += 1
    if width < limit:
        links[row, width] = node
        return
    count = 0
    for j in range(limit + 1):
        other = node if j == limit else links[row, j]
        near = distance_between(vectors, other, base, squared)
        beam_insert(work_distances[: limit + 1], work_ids[: limit + 1], count, near, other)
        count += 1
    select_neighbours(vectors, squared, work_ids, work_distances, count, limit, links[row])


@jit
def insert_nodes(vectors, squared, first, last, entry, levels, base_links, upper_links, rows, visited, ef_construction):
    """Algorithm 1 for the nodes `first` to `last - 1`.

    Args:
        entry: the node where every search begins (the first of the highest level), -1 for an empty graph.
        levels: (N,) level of every node.
        visited: uint32 (N + 1,); its last element holds the epoch.

    Returns:
        (entry node, distances computed, neighbour selection not counted).
    """
    beam_distances, beam_ids = np.empty(ef_construction, np.float32), np.empty(ef_construction, np.int32)
    chosen = np.empty(base_links.shape[1], np.int32)
    work_ids = np.empty(base_links.shape[1] + 1, np.int32)
    work_distances = np.empty(base_links.shape[1] + 1, np.float32)
    clock, total = visited.shape[0] - 1, 0
    for node in range(first, last):
        if entry < 0:
            entry = node
            continue
        query, level, top = vectors[node], levels[node], levels[entry]
        nearest, near, computed = greedy_descent(query, vectors, squared, upper_links, rows, entry, top, level)
        total += computed
        beam_ids[0], beam_distances[0], count = nearest, near, 1
        for layer in range(min(level, top), -1, -1):
            links = base_links if layer == 0 else upper_links
            visited[clock] += 1
            count, computed = search_layer(
                query, vectors, squared, links, rows, layer, visited, visited[clock], beam_distances, beam_ids, count,
            )  # fmt: skip
            total += computed
            limit = links.shape[1]  # 2M on layer 0, as in FAISS; the paper and hnswlib take M and leave room for others
            kept = select_neighbours(vectors, squared, beam_ids, beam_distances, count, limit, chosen[:limit])
            own = node if layer == 0 else rows[node] + layer - 1
            for j in range(kept):
                other = chosen[j]
                links[own, j] = other
                theirs = other if layer == 0 else rows[other] + layer - 1
                connect(vectors, squared, links, theirs, other, node, limit, work_ids, work_distances)
        if level > top:
            entry = node
    return entry, total


@jit
def search_graph(queries, vectors, squared, k, entry, top, base_links, upper_links, rows, visited, ef):
    """Algorithm 5 for a batch: descend greedily, then a beam of `ef` on layer 0.

    Returns:
        distances (Q, k) and ids (Q, k), nearest first, inf and -1 where fewer were reached; distances computed.
    """
    found = np.full((queries.shape[0], k), -1, np.int64)
    distances = np.full((queries.shape[0], k), np.inf, np.float32)
    beam_distances, beam_ids = np.empty(ef, np.float32), np.empty(ef, np.int32)
    clock, total = visited.shape[0] - 1, 0
    for i in range(queries.shape[0]):
        nearest, near, computed = greedy_descent(queries[i], vectors, squared, upper_links, rows, entry, top, 0)
        total += computed
        beam_ids[0], beam_distances[0] = nearest, near
        visited[clock] += 1
        count, computed = search_layer(
            queries[i], vectors, squared, base_links, rows, 0, visited, visited[clock], beam_distances, beam_ids, 1,
        )  # fmt: skip
        total += computed
        for j in range(min(k, count)):
            found[i, j], distances[i, j] = beam_ids[j], beam_distances[j]
    return distances, found, total
