"""Registries that are wrong in one way each, and the check of the suite that must notice. Named after the check."""

import shutil
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from labkit.errors import LabError
from stage3_agents_llmops.registry.event_log import Event, EventLog
from stage3_agents_llmops.registry.file_registry import FileRegistry, replay
from stage3_agents_llmops.registry.interface import ANY, AliasChange, Collected, Unknown
from stage3_agents_llmops.registry.release import Lineage


class Flattens(FileRegistry):
    def load(self, ref, target):
        target = Path(target)
        target.mkdir(parents=True)
        for file in self.get(ref).manifest.files:
            self.store.copy_to(file, target / Path(file.path).name)
        return target


class PublishesTwice(FileRegistry):
    def publish(self, draft):
        return super().publish(replace(draft, note=f"{draft.note} {time.time_ns()}"))


class SortsByName(FileRegistry):
    def versions(self):
        return sorted(super().versions(), key=lambda release: str(release.version))


class LosesItsOrigin(FileRegistry):
    def publish(self, draft):
        return super().publish(replace(draft, lineage=Lineage()))


class TakesWhatIsThere(FileRegistry):
    def publish(self, draft):
        parts = {part: place for part, place in draft.parts.items() if place.exists()}
        whole = {part: next(iter(parts.values())) for part in ("model", "rag", "graph")} | parts
        return super().publish(replace(draft, parts={part: whole[part] for part in ("model", "rag", "graph")}))


class GivesTheNewest(FileRegistry):
    def get(self, ref):
        with suppress(Unknown):
            return super().get(ref)
        return self.versions()[-1]


class Links(FileRegistry):
    def publish(self, draft):
        release = super().publish(draft)
        for file in release.manifest.files:
            source = next((place / Path(*Path(file.path).parts[1:]) for part, place in draft.parts.items()
                           if file.path.startswith(f"{part}/")), draft.evaluation)  # fmt: skip
            self.store.path(file.sha256).unlink()
            self.store.path(file.sha256).symlink_to(source)
        return release


class Trusts(FileRegistry):
    """Hands out what lies there."""

    def load(self, ref, target):
        for file in self.get(ref).manifest.files:
            (Path(target) / file.path).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(self.store.path(file.sha256), Path(target) / file.path)
        return Path(target)


class ComparesLengths(FileRegistry):
    """A check that is quick and blind."""

    def load(self, ref, target):
        for file in self.get(ref).manifest.files:
            if not self.store.present(file):
                return super().load(ref, target)
        return Trusts.load(self, ref, target)


class Overwrites(FileRegistry):
    def load(self, ref, target):
        shutil.rmtree(target, ignore_errors=True)
        return super().load(ref, target)


class Unlocked(FileRegistry):
    """Two publishers read the same number, and both write it."""

    def _locked(self):
        return nullcontext()

    def _state(self):
        state = super()._state()
        time.sleep(0.1)
        return state


class Remembers(FileRegistry):
    """Reads the log once."""

    def aliases(self):
        self._known = getattr(self, "_known", None) or super().aliases()
        return self._known

    def get(self, ref):
        return super().get(self.aliases().get(ref, ref))


class AnyName(FileRegistry):
    def set_alias(self, alias, version, **named):
        with suppress(LabError):
            return super().set_alias(alias, version, **named)
        return super().set_alias("x", version)


class AnyChampion(FileRegistry):
    def set_alias(self, alias, version, *, expected=ANY, actor="", reason=""):
        with self._locked():
            state = self._state()
            return self._move("set", alias, self._find(version, state), state, actor, reason)


class LooksAway(FileRegistry):
    """Moves an alias to files that are gone."""

    def _move(self, kind, alias, release, state, actor, reason):
        data = {"alias": alias, "version": release.version, "previous": state.aliases.get(alias), "actor": actor,
                "reason": reason}  # fmt: skip
        event = self.log.append(kind, data)
        return AliasChange(event.number, kind=kind, time=event.time, **data)


class LastWins(FileRegistry):
    def set_alias(self, alias, version, *, expected=ANY, actor="", reason=""):
        return super().set_alias(alias, version, actor=actor, reason=reason)


class ChecksThenWrites(FileRegistry):
    """The condition in one step, the move in another."""

    def set_alias(self, alias, version, *, expected=ANY, actor="", reason=""):
        if expected is not ANY and self.aliases().get(alias) != expected:
            return super().set_alias(alias, version, expected=expected)
        time.sleep(0.02)
        return super().set_alias(alias, version, actor=actor, reason=reason)


class Forgets(FileRegistry):
    def history(self, alias=None):
        return super().history(alias)[-1:]


class PingPong(FileRegistry):
    """A second rollback goes back to what the first one left."""

    def rollback(self, alias, *, expected=ANY, actor="", reason=""):
        moves = super().history(alias)
        if len(moves) < 2:
            return super().rollback(alias, expected=expected)
        return super().set_alias(alias, moves[-1].previous, expected=expected)


class Rewritable(FileRegistry):
    """A log that is read as it stands."""

    def __init__(self, folder, *words):
        super().__init__(folder, *words)
        self.log = _Unchained(self.log.path)


class _Unchained(EventLog):
    def read(self):
        return [Event(**self._parse(number, line)) for number, line in enumerate(self._lines()[0], 1)]


class Greedy(FileRegistry):
    """Keeps the newest, whatever points elsewhere."""

    def collect_garbage(self, keep=3, dry_run=False):
        with self._locked():
            going = tuple(sorted(self._state().manifests)[:-keep])
            self.log.append("collected", {"versions": list(going)})
        return Collected(going, 2 * len(going), 10**9)


class RollsBackIntoTheVoid(FileRegistry):
    """An alias goes to a version that was collected."""

    def _find(self, ref, state):
        if ref in state.collected:
            everything = replay(event for event in self.log.read() if event.kind != "collected")
            return super()._find(ref, everything)
        return super()._find(ref, state)

    def collect_garbage(self, keep=3, dry_run=False):
        with self._locked():
            going = tuple(sorted(self._state().manifests)[:-keep][:1])
            self.log.append("collected", {"versions": list(going)})
        return Collected(going, 0, 0)


class KeepsCopies(FileRegistry):
    def publish(self, draft):
        release = super().publish(draft)
        for file in release.manifest.files:
            target = self.folder / "copies" / str(release.version) / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.store.path(file.sha256), target)
        return release


class ClaimsNothing(FileRegistry):
    capabilities = frozenset()


BROKEN = {
    "a_release_comes_back_byte_for_byte": Flattens,
    "equal_content_is_one_version": PublishesTwice,
    "another_client_sees_versions_in_order": SortsByName,
    "lineage_is_kept": LosesItsOrigin,
    "an_incomplete_release_is_refused": TakesWhatIsThere,
    "what_is_unknown_is_said": GivesTheNewest,
    "a_version_does_not_change_with_its_source": Links,
    "a_changed_file_is_refused_at_load": ComparesLengths,
    "a_truncated_file_is_refused_at_load": Trusts,
    "a_missing_file_is_refused_at_load": Trusts,
    "load_leaves_what_is_in_the_target": Overwrites,
    "publishing_at_once_gives_each_its_number": Unlocked,
    "an_alias_moves_and_everybody_sees_it": Remembers,
    "names_that_cannot_be_aliases": AnyName,
    "a_champion_needs_an_evaluation": AnyChampion,
    "an_alias_does_not_go_to_a_damaged_version": LooksAway,
    "the_second_writer_is_told": LastWins,
    "of_many_writers_one_wins": ChecksThenWrites,
    "every_move_is_remembered": Forgets,
    "rollback_goes_back_step_by_step": PingPong,
    "a_rewritten_history_is_noticed": Rewritable,
    "garbage_collection_keeps_what_is_needed": Greedy,
    "no_rollback_to_what_was_collected": RollsBackIntoTheVoid,
    "a_shared_file_is_stored_once": KeepsCopies,
}
