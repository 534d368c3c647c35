"""What the metadata of a pool's domains say of the pool.

It promises that keys which are not about pools are left alone, and that a list of domains which cannot be read raises, and is
never taken for a short one.
"""

from __future__ import annotations

from collections.abc import Mapping

from drivers.storage.contract import LONGEST_DESCRIPTION, Role, is_uuid
from drivers.storage.domains import metadata
from drivers.storage.domains.metadata import Fields
from drivers.storage.errors import InvalidParameter, MetadataInvalid
from drivers.storage.pools.errors import PoolNameTooLong

ACTIVE, ATTACHED = "Active", "Attached"
FREE = -1
"""The id of no SPM, and the version of a lease that nobody ever had."""
DOMAINS, NAME, SPM_ID, SPM_LVER, VERSION = (
    "POOL_DOMAINS",
    "POOL_DESCRIPTION",
    "POOL_SPM_ID",
    "POOL_SPM_LVER",
    "MASTER_VERSION",
)
_WORDS = {"active": ACTIVE, "attached": ATTACHED, "locked": "Locked", "unknown": "Unknown", "unattached": "Unattached"}
"""The states of domains in requests, and as they stand on disk and in replies."""


def members(fields: Mapping[str, str], what: str) -> dict[str, str]:
    """Return the states of the pool's domains, by id. Raises MetadataInvalid."""
    found = {}
    for item in filter(None, (part.strip() for part in fields.get(DOMAINS, "").split(","))):
        uuid, _, state = item.partition(":")
        if not is_uuid(uuid) or not state.isalpha():
            raise MetadataInvalid(what=what, reason=f"{DOMAINS} has {item[:60]!a}")
        found[uuid.lower()] = state.capitalize()
    return found


def members_text(states: Mapping[str, str]) -> str:
    return ",".join(f"{uuid}:{state}" for uuid, state in sorted(states.items()))


def asked(states: Mapping[str, object], what: str) -> dict[str, str]:
    """Return the states of domains as a caller gives them. Raises InvalidParameter."""
    for uuid, state in states.items():
        if not is_uuid(uuid):
            raise InvalidParameter(what=what, reason=f"{uuid[:60]!a} is no UUID")
        if str(state).lower() not in _WORDS:
            raise InvalidParameter(what=what, reason=f"{str(state)[:60]!a} is none of {', '.join(_WORDS)}")
    return {uuid.lower(): _WORDS[str(state).lower()] for uuid, state in states.items()}


def name(text: str) -> str:
    """Return a pool's name as it stands in the file. Raises PoolNameTooLong."""
    if len(text) > LONGEST_DESCRIPTION:
        raise PoolNameTooLong(what="name", reason="too long", length=len(text), limit=LONGEST_DESCRIPTION)
    return metadata.description(text)


def attached(fields: Fields, pool: str) -> Fields:
    """Return the fields with the pool among those of the domain."""
    pools = metadata.pools(fields)
    return fields if pool in pools else {**fields, "POOL_UUID": ",".join([*pools, pool])}


def detached(fields: Fields, pool: str) -> Fields:
    """Return the fields without the pool. The domain is nobody's master then."""
    left = [other for other in metadata.pools(fields) if other != pool]
    return {**fields, "POOL_UUID": ",".join(left), "ROLE": str(Role.REGULAR)}


def regular(fields: Fields) -> Fields:
    """Return the fields of a domain that is no master any more."""
    return {**fields, "ROLE": str(Role.REGULAR)}


def mastered(fields: Fields, version: int, *, pool_name: str, states: Mapping[str, str], timing: Fields) -> Fields:
    """Return the fields of a domain that becomes the master of a pool without SPM."""
    return {
        **fields,
        **timing,
        "ROLE": str(Role.MASTER),
        VERSION: str(version),
        NAME: pool_name,
        DOMAINS: members_text(states),
        SPM_ID: str(FREE),
        SPM_LVER: str(FREE),
    }


def unmastered(fields: Fields) -> Fields:
    """Return the fields without anything about a pool."""
    gone = (DOMAINS, NAME, SPM_ID, SPM_LVER, VERSION)
    return {**{key: value for key, value in fields.items() if key not in gone}, "ROLE": str(Role.REGULAR)}


def spm(fields: Mapping[str, str], what: str) -> tuple[int, int]:
    """Return the SPM's id and the version of its lease. Raises MetadataInvalid."""
    return metadata.number(fields, SPM_ID, what, FREE), metadata.number(fields, SPM_LVER, what, FREE)


def upgraded(fields: Fields, version: int) -> Fields:
    """Return the fields of the same domain in a higher version."""
    changed = {**fields, "VERSION": str(version)}
    if version >= 5:
        changed = {"ALIGNMENT": str(1 << 20), "BLOCK_SIZE": "512", **changed}
        for key in ("LOGBLKSIZE", "PHYBLKSIZE"):
            changed.pop(key, None)
    if version >= 3:
        changed["LOCKPOLICY"] = ""
    return changed
