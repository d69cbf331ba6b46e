"""The first tables: runs, units, attempts, bundles, versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def _json() -> sa.JSON:
    return sa.JSON().with_variant(JSONB(), "postgresql")


def _words(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def _partition() -> list[sa.Column]:
    return [
        sa.Column("run_id", sa.String, sa.ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("norder", sa.Integer, primary_key=True),
        sa.Column("npix", sa.BigInteger, primary_key=True),
    ]


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String, primary_key=True),
        *_words("catalogue", "release", "recipe", "science", "bundle", "code", "plan"),
        *_numbers("units"),
        *_words("created", "state"),
        sa.Column("ended", sa.String),
        sa.Column("counts", _json(), nullable=False),
    )
    op.create_index("runs_of_a_catalogue", "runs", ["catalogue", "created"])
    op.create_table(
        "units",
        *_partition(),
        *_words("state", "fingerprint"),
        *_numbers("rows_in", "classified"),
        sa.Column("rejected", _json(), nullable=False),
        *_numbers("bytes"),
        *_words("sha256"),
        *_numbers("epochs"),
        sa.Column("seconds", sa.Double, nullable=False),
        *_numbers("peak_rss_bytes"),
        sa.Column("attempts", sa.Integer, nullable=False),
        *_words("host", "input"),
        *_numbers("input_bytes"),
        *_words("started", "finished"),
        sa.Column("error_class", sa.String),
    )
    op.create_index("units_of_a_partition", "units", ["norder", "npix"])
    op.create_index("units_by_state", "units", ["run_id", "state"])
    op.create_table(
        "attempts",
        *_partition(),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("outcome", sa.String, primary_key=True),
        *_words("host", "started", "finished"),
        sa.Column("seconds", sa.Double, nullable=False),
        *_numbers("peak_rss_bytes", "batch_epochs"),
        sa.Column("alone", sa.Boolean, nullable=False),
        sa.Column("error_class", sa.String),
        sa.Column("error", sa.String),
        sa.Column("decision", sa.String),
    )
    op.create_table("bundles", sa.Column("digest", sa.String, primary_key=True), *_words("kind", "name"))
    op.create_table(
        "versions",
        sa.Column("catalogue", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("runs", _json(), nullable=False),
        *_words("created", "state"),
        sa.Column("current", sa.Boolean, nullable=False),
    )


def downgrade() -> None:
    """Drop them: all can be made anew from the files."""
    for name in ("versions", "bundles", "attempts", "units", "runs"):
        op.drop_table(name)
