"""The names that mean a secret: data/policy.yaml lists them once, and rules refer to the lists.

A name of several words stands for all ways in which files join them: `api key` is also `apikey`, `api_key`, `api-key`
and `api.key`. The pattern of a rule with `names` begins directly after each place where one of them occurs (match.py).
Used by: rules.py.
"""

from __future__ import annotations

from collections.abc import Iterable

JOINERS = ("", " ", "_", "-", ".")


def name_literals(names: Iterable[str]) -> tuple[str, ...]:
    """The texts in which the names occur, without those that end with another one: both end at the same place.

    >>> name_literals(["pwd", "api key"])
    ('pwd', 'apikey', 'api key', 'api_key', 'api-key', 'api.key')
    >>> name_literals(["_key", "api key"])
    ('_key', 'apikey', 'api key', 'api-key', 'api.key')
    """
    spelt = (joiner.join(name.split(" ")) for name in names for joiner in (JOINERS if " " in name else ("",)))
    literals = dict.fromkeys(spelt)
    return tuple(one for one in literals if not any(one != other and one.endswith(other) for other in literals))
