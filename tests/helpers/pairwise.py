"""Few test cases in which every two values of two factors meet."""

import itertools


def pairwise(factors):
    """A list of dicts, one value per factor, that covers all pairs of values.

    Greedy and deterministic: each case starts with a pair not met yet; the other
    factors take, one after the other, the value that adds the most pairs.

    Args:
        factors: Dict from a name to its list of values; values are told apart by
            their position.
    """
    names = list(factors)
    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(names, 2)
        for i in range(len(factors[a]))
        for j in range(len(factors[b]))
    }
    order = {name: at for at, name in enumerate(names)}

    def pairs(chosen, name, i):
        new = (name, i)
        for other in chosen.items():
            pair = (other, new) if order[other[0]] < order[name] else (new, other)
            if pair in missing:
                yield pair

    cases = []
    while missing:
        chosen = dict(min(missing, key=lambda p: [(order[n], i) for n, i in p]))
        for name in names:
            if name not in chosen:
                # Ties rotate, or the first values would meet in every case.
                shift = len(cases) % len(factors[name])
                values = [*range(len(factors[name]))]
                values = values[shift:] + values[:shift]
                chosen[name] = max(
                    values, key=lambda i: sum(1 for _ in pairs(chosen, name, i))
                )
        missing -= set(itertools.combinations([(n, chosen[n]) for n in names], 2))
        cases.append({name: factors[name][chosen[name]] for name in names})
    return cases
