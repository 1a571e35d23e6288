"""Saving, retiring and listing configs, for any caller that has a principal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from confide.domain import bodies, masking, merging
from confide.domain.configs import (
    Condition,
    ConfigDraft,
    ConfigLine,
    Kind,
    Outcome,
    Saved,
    StoredVersion,
)
from confide.domain.errors import (
    ConfigurationInvalid,
    Fault,
    IdempotencyKeyReused,
    IntegrityBroken,
    NotFound,
    TooManyRaces,
)
from confide.domain.grants import Principal, Role, Scope
from confide.domain.names import Key
from confide.ports import (
    SECOND,
    Clock,
    News,
    NewVersion,
    Replay,
    ReplayTaken,
    SealBroken,
    SealContext,
    Sealer,
    Store,
    StoredKey,
)
from confide.service.access import Access
from confide.service.auditing import Auditor
from confide.service.cache import Cache, Current, Rendering
from confide.service.lines import Lines
from confide.service.opening import Opener, Overtaken

MOST_RACES = 64
MOST_IN_LINE = 1_000
REPLAY_SECONDS = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Retry:
    """The `Idempotency-Key` of a request, and all that a retry of it must repeat."""

    route: str
    name: str
    content: bytes = field(repr=False)


class Configs:
    """Saves, lists and retires configs; roles are checked here."""

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        *,
        access: Access,
        auditor: Auditor,
        opener: Opener,
        cache: Cache,
        news: News,
        clock: Clock,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._access = access
        self._auditor = auditor
        self._opener = opener
        self._cache = cache
        self._news = news
        self._clock = clock
        self._lines: Lines[Key] = Lines(most_in_line=MOST_IN_LINE)

    async def list(self, wanted: Scope, *, by: Principal, after: Key | None, limit: int) -> Sequence[ConfigLine]:
        """List what the caller may see of what is wanted, in order of key; never bodies."""
        groups = [[wanted], [grant.scope for grant in by.grants]]
        if by.narrowed is not None:
            groups.append([grant.scope for grant in by.narrowed])
        return await self._store.configs.page(groups, after=after, limit=limit)

    async def save(
        self, draft: ConfigDraft, *, by: Principal, condition: Condition, retry: Retry | None = None
    ) -> Saved:
        """Save a draft as the next version, in line behind other saves of this config.

        The condition is judged first; if it does not hold, or the outcome is unchanged, nothing is stored.
        """
        await self._access.must_have(Role.EDITOR, draft.key, by=by, action="save")
        if not isinstance(draft.configuration, dict):
            at = Fault("/configuration", ConfigurationInvalid.code, ConfigurationInvalid.sentence)
            raise ConfigurationInvalid(faults=(at,))
        masking.must_hold_no_mask(draft.configuration)
        return await self._in_line(draft, by=by, condition=condition, retry=retry)

    async def retire(self, key: Key, *, by: Principal, condition: Condition, retry: Retry | None = None) -> Saved:
        """Retire a config: it reads as missing and keeps its history."""
        await self._access.must_have(Role.EDITOR, key, by=by, action="retire")
        return await self._in_line(key, by=by, condition=condition, retry=retry)

    async def forget_old_replays(self) -> None:
        await self._store.configs.forget_replays(before=self._clock() - REPLAY_SECONDS * SECOND)

    async def _in_line(
        self, act: ConfigDraft | Key, *, by: Principal, condition: Condition, retry: Retry | None
    ) -> Saved:
        key = act if isinstance(act, Key) else act.key
        replay = None if retry is None else self._replay(retry, by=by)
        async with self._lines.of(key) as line:
            await line.yield_to_rivals()
            for races_lost in range(MOST_RACES):
                began = time.monotonic()
                if replay and (replayed := await self._replayed(replay, key)):
                    return replayed
                try:
                    saved = await self._tried(act, by=by, condition=condition, replay=replay)
                except Overtaken:
                    continue
                except ReplayTaken:
                    # By a twin of this request, or by one of long ago whose record is only in the way.
                    await self.forget_old_replays()
                    continue
                if saved is not None:
                    line.note(saved.version, seconds=time.monotonic() - began, races_lost=races_lost)
                    return saved
        raise TooManyRaces(retry_after_seconds=1)

    async def _tried(
        self, act: ConfigDraft | Key, *, by: Principal, condition: Condition, replay: Replay | None
    ) -> Saved | None:
        """One try; None if the race was lost, to another process or to the end of the tenant's key."""
        if isinstance(act, Key):
            return await self._tried_retiring(act, by=by, condition=condition, replay=replay)
        key = act.key
        current, active = await self._store.configs.read_with_key(key)
        self._hear(current)
        is_live = current is not None and current.kind is Kind.SAVED
        condition.must_hold(current.version if current is not None and is_live else None)
        kept = await self._kept(current, active, how=act.how) if current is not None and is_live else None
        before = None if kept is None else bodies.read_kept(kept)
        after = merging.merge(before or {}, act.configuration) if act.how == "merge" else act.configuration
        plain = bodies.check_merged(after)
        # What is equal is as long, whatever the order of its members.
        if current is not None and kept is not None and len(kept) == len(plain) and bodies.are_equal(before, after):
            return await self._unchanged(key, current.version, replay)
        version = current.version + 1 if current is not None else 1
        key_id = await self._key_for_saving(key.tenant, active)
        sealed = self._sealer.seal(plain, SealContext(key, version, Kind.SAVED), key_id=key_id)
        outcome = Outcome.UPDATED if is_live else Outcome.CREATED
        new = NewVersion(key, version, Kind.SAVED, key_id, sealed, saved_by=by.user_id, saved_at=self._clock())
        return await self._appended(new, outcome, by=by, replay=replay, plain=plain)

    async def _key_for_saving(self, tenant: str, active: StoredKey | None) -> bytes:
        try:
            return await self._sealer.key_for_saving(tenant, active)
        except SealBroken:
            # Destroyed since it was read.
            raise Overtaken from None

    async def _tried_retiring(
        self, key: Key, *, by: Principal, condition: Condition, replay: Replay | None
    ) -> Saved | None:
        current = await self._store.configs.read(key)
        self._hear(current)
        is_live = current is not None and current.kind is Kind.SAVED
        condition.must_hold(current.version if current is not None and is_live else None)
        if current is None or not is_live:
            raise NotFound
        new = NewVersion(
            key, current.version + 1, Kind.RETIRED, None, None, saved_by=by.user_id, saved_at=self._clock()
        )
        return await self._appended(new, Outcome.RETIRED, by=by, replay=replay, plain=None)

    async def _appended(
        self, new: NewVersion, outcome: Outcome, *, by: Principal, replay: Replay | None, plain: bytes | None
    ) -> Saved | None:
        digest = None if plain is None else self._sealer.mac("audit", plain)
        action = "retire" if new.kind is Kind.RETIRED else "save"
        entry, mac = self._auditor.entry(action, outcome, by=by, key=new.key, version=new.version, digest=digest)
        kept = replay and replace(replay, version=new.version, outcome=outcome)
        with self._cache.flight(new.key) as flight:
            if not await self._store.configs.append(new, entry=entry, mac=mac, replay=kept):
                return None
            self._cache.land(flight, new.key, Current(new.version, plain), rendering=Rendering.OPENED)
        self._news.tell()
        self._opener.note_whole(new.key)
        return Saved(new.key, new.version, outcome)

    async def _unchanged(self, key: Key, version: int, replay: Replay | None) -> Saved:
        if replay is not None:
            kept = replace(replay, version=version, outcome=Outcome.UNCHANGED)
            await self._store.configs.keep_replay(kept, saved_at=self._clock())
        return Saved(key, version, Outcome.UNCHANGED)

    async def _kept(self, current: StoredVersion, active: StoredKey | None, *, how: str) -> bytes | None:
        try:
            return await self._opener.opened(current, active)
        except IntegrityBroken:
            # What no longer opens cannot be merged into, but it can be replaced.
            if how == "merge":
                raise
            return None

    def _hear(self, current: StoredVersion | None) -> None:
        """What a save learns of the current version, a read of this process knows from then on."""
        if current is not None:
            self._cache.hear(current.key, current.version, is_retired=current.kind is Kind.RETIRED)

    def _replay(self, retry: Retry, *, by: Principal) -> Replay:
        return Replay(by.user_id, retry.route, retry.name, self._sealer.mac("idempotency", retry.content))

    async def _replayed(self, replay: Replay, key: Key) -> Saved | None:
        not_before = self._clock() - REPLAY_SECONDS * SECOND
        known = await self._store.configs.read_replay(replay, not_before=not_before)
        if known is None:
            return None
        if known.mac != replay.mac:
            raise IdempotencyKeyReused
        self._cache.hear(key, known.version, is_retired=known.outcome is Outcome.RETIRED)
        return Saved(key, known.version, known.outcome, is_replayed=True)
