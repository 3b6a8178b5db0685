"""What MLflow's aliases lack, in a table of our own in MLflow's database: a condition, a history, a way back.

MLflow's `set_registered_model_alias` overwrites whatever is there, and nobody can tell later what that was
(mlflow issue 2169, open since 2019). Here the move and its line in the history are one SQL transaction:

    UPDATE registered_model_aliases SET version = :new WHERE name = :n AND alias = :a AND version = :expected
    INSERT INTO course_alias_changes ...

The row that is compared is MLflow's own, so a move made elsewhere (MLflow's page, another client) is not missed: the
condition fails, and the history shows a gap, reported as a change of kind "outside".
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import sqlalchemy as sql
from sqlalchemy import exc

from labkit.errors import LabError
from stage3_agents_llmops.registry.interface import PROG, AliasChange, Locked, check_expected

META = sql.MetaData()
CHANGES = sql.Table(
    "course_alias_changes", META,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("model", sql.String(256), nullable=False, index=True),
    sql.Column("alias", sql.String(64), nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("previous", sql.Integer),
    sql.Column("kind", sql.String(16), nullable=False),
    sql.Column("time", sql.String(32), nullable=False),
    sql.Column("actor", sql.String(256), nullable=False),
    sql.Column("reason", sql.String(2000), nullable=False),
)  # fmt: skip
ALIASES = sql.table("registered_model_aliases", sql.column("name"), sql.column("alias"), sql.column("version"))


class AliasTable:
    """Aliases of one registered model, by SQL.

    Args:
        url: of the database that MLflow uses.
        patience: seconds to wait for an SQLite file that another process has locked.
    """

    def __init__(self, url: str, model: str, patience: float = 10.0) -> None:
        self.model = model
        how = {"timeout": patience} if url.startswith("sqlite") else {}
        self.engine = sql.create_engine(url, poolclass=sql.pool.NullPool, connect_args=how)
        META.create_all(self.engine)
        found = {column["name"] for column in sql.inspect(self.engine).get_columns("registered_model_aliases")}
        if not {"name", "alias", "version"} <= found:
            raise LabError("this MLflow keeps its aliases in another way than 3.17", "the course's own registry")

    def move(
        self, alias: str, version: int, previous: int | None, kind: str, actor: str, reason: str
    ) -> AliasChange:
        """Point an alias at a version if it points at `previous` now (None: if it does not exist).

        Raises:
            Conflict: it points elsewhere; nothing was changed.
            Locked: another process holds the database for too long.
        """
        row = {"alias": alias, "version": version, "previous": previous, "kind": kind, "actor": actor,
               "reason": reason, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}  # fmt: skip
        try:
            with self.engine.begin() as connection:
                if not self._swap(connection, alias, version, previous):
                    check_expected(alias, self._current(connection, alias), previous)
                    raise Locked(f"{alias} is being moved by somebody else", f"{PROG} history, then decide again")
                number = connection.execute(CHANGES.insert().values(model=self.model, **row)).inserted_primary_key[0]
        except exc.IntegrityError:  # two inserted a new alias
            check_expected(alias, self.current(alias), previous)
            raise
        except exc.OperationalError as error:
            if "locked" in str(error):
                raise Locked("MLflow's database is locked by another process", "the same command again") from None
            text = " ".join(str(error.orig).split())[:200]
            raise LabError(f"MLflow's database did not answer: {text}", f"{PROG} history, then decide again") from None
        return AliasChange(number, **row)

    def current(self, alias: str) -> int | None:
        """What an alias points at, None for an alias that does not exist."""
        with self.engine.connect() as connection:
            return self._current(connection, alias)

    def history(self, aliases: dict[str, int]) -> list[AliasChange]:
        """All moves, oldest first, with those that were made outside where the rest does not add up.

        Args:
            aliases: what MLflow says now.
        """
        names = [column for column in CHANGES.c if column.name != "model"]
        query = sql.select(*names).where(CHANGES.c.model == self.model).order_by(CHANGES.c.number)
        with self.engine.connect() as connection:
            rows = [AliasChange(**row) for row in connection.execute(query).mappings()]
        return with_outside(rows, aliases)

    def _swap(self, connection: sql.Connection, alias: str, version: int, previous: int | None) -> bool:
        if previous is None:
            connection.execute(ALIASES.insert().values(name=self.model, alias=alias, version=version))
            return True
        where = (ALIASES.c.name == self.model) & (ALIASES.c.alias == alias) & (ALIASES.c.version == previous)
        return connection.execute(ALIASES.update().where(where).values(version=version)).rowcount == 1

    def _current(self, connection: sql.Connection, alias: str) -> int | None:
        where = (ALIASES.c.name == self.model) & (ALIASES.c.alias == alias)
        return connection.execute(sql.select(ALIASES.c.version).where(where)).scalar()


def with_outside(rows: Iterable[AliasChange], aliases: dict[str, int]) -> list[AliasChange]:
    """The recorded moves, and one of kind "outside" (number 0) wherever an alias moved without being recorded."""
    points: dict[str, int | None] = {}
    whole = []

    def outside(alias: str, version: int, time: str) -> AliasChange:
        return AliasChange(0, alias, version, points.get(alias), "outside", time, reason="not made by this registry")

    for row in rows:
        if row.previous is not None and row.previous != points.get(row.alias):
            whole.append(outside(row.alias, row.previous, f"before {row.time}"))
        whole.append(row)
        points[row.alias] = row.version
    return whole + [outside(alias, version, "since then") for alias, version in sorted(aliases.items())
                    if points.get(alias) != version]  # fmt: skip
