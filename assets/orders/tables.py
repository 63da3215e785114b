"""The tables that orders fill, column by column.

Here: declarations. Not here: how rows come about (changes.py, current.py, credit.py) or are written (take.py).
`orders` may have more columns than are declared here: those that the shop's table gained.
"""

from __future__ import annotations

import pyarrow as pa

from assets.events.contract import QUARANTINE, TIME
from assets.lake import HOUR, Table


def _field(name: str, kind: pa.DataType, comment: str) -> pa.Field:
    return pa.field(name, kind, metadata={"comment": comment})


ORDER_ID = _field("order_id", pa.string(), "the shop's key of an order")
POSITION = [
    _field("change_time", TIME, "when the shop's database made the change"),
    _field("change_position", pa.int64(), "place in the database's log; 0 where the stream names none"),
    _field("change_item", pa.int64(), "place within that position, from 0"),
    _field("change_op", pa.string(), "c insert, r row of a snapshot, u update, d delete, s schema change"),
]

PLACE = _field("change_place", pa.string(), "place in the database's log, as a text that sorts as the log does; empty: the stream names none")

ORDER_CHANGES = Table(
    "order_changes",
    pa.schema(
        [
            HOUR,
            _field("source", pa.string(), "the change file's fingerprint, see order_sources"),
            _field("row", pa.int64(), "line of that file, from 1"),
            ORDER_ID,
            *POSITION,
            _field("after", pa.string(), "the row after the change as JSON, null for a delete; of a schema change its text"),
            PLACE,
        ]
    ),
    "Every change of the shop's table once, as received, append only. Hour of change_time.",
)

# What a row of the shop's table has to hold, and what it may: name -> (type, required).
SHOP_COLUMNS = {
    "order_id": (pa.string(), True),
    "user_id": (pa.int64(), False),
    "product_id": (pa.int64(), False),
    "amount_cents": (pa.int64(), True),
    "refunded_cents": (pa.int64(), False),
    "status": (pa.string(), True),
    "created_at": (TIME, True),
    "updated_at": (TIME, False),
}

ORDERS = Table(
    "orders",
    pa.schema(
        [
            HOUR,
            ORDER_ID,
            _field("user_id", pa.int64(), "who ordered; null where the shop says nothing that fits"),
            _field("product_id", pa.int64(), "what; null likewise"),
            _field("amount_cents", pa.int64(), "price of it all"),
            _field("refunded_cents", pa.int64(), "what was given back so far; 0 where the shop says nothing"),
            _field("status", pa.string(), "as the shop spells it"),
            _field("created_at", TIME, "when it was placed"),
            _field("updated_at", TIME, "the shop's own time of the last change"),
            *POSITION,
            PLACE,
            _field("rescued", pa.string(), "values that do not fit their columns, by column, as JSON; null without any"),
            _field("left_out", pa.string(), "columns that the newest change left out: by column the place that the value shown is of, as JSON"),
        ]
    ),
    "The shop's table as of the newest change, one row an order_id; a deleted order is a row with change_op d and no "
    "values. Columns that the shop's table gains appear here. Hour of created_at (deleted: of the delete).",
)

NOTE_PRODUCTS = Table(
    "note_products",
    pa.schema(
        [
            _field("note_id", pa.int64(), "a note"),
            _field("product_id", pa.int64(), "a product that it plants"),
            _field("source", pa.string(), "the catalogue file's fingerprint, see order_sources"),
        ]
    ),
    "Which notes plant which products; one row a pair, append only.",
    partitioned=False,
)

PLANTING_ACTIONS = Table(
    "planting_actions",
    pa.schema(
        [
            HOUR,
            _field("user_id", pa.int64(), "who"),
            _field("note_id", pa.int64(), "with which note"),
            _field("author_id", pa.int64(), "of the note; null where the event does not say"),
            _field("action", pa.string(), "what: click, like, ..."),
            _field("event_time", TIME, "when"),
            _field("event_id", pa.string(), "the event's"),
            _field("channel", pa.string(), "where"),
        ]
    ),
    "The events that may have planted an order, without what orders do not need. Hour of event_time.",
)

ORDER_ATTRIBUTIONS = Table(
    "order_attributions",
    pa.schema(
        [
            HOUR,
            ORDER_ID,
            _field("user_id", pa.int64(), "who ordered; 0 where the shop says nothing that fits"),
            _field("product_id", pa.int64(), "what; 0 likewise"),
            _field("note_id", pa.int64(), "the note that planted it; null: unattributed"),
            _field("author_id", pa.int64(), "that note's author; null where the click does not say"),
            _field("channel", pa.string(), "of the click"),
            _field("click_time", TIME, "of the click"),
            _field("placed_at", TIME, "when the order was placed"),
            _field("status", pa.string(), "as the shop spells it"),
            _field("amount_cents", pa.int64(), "price of it all, whether it counts or not"),
            _field("gross_cents", pa.int64(), "what counts as revenue: amount_cents or 0, by the status"),
            _field("refunded_cents", pa.int64(), "what of it was given back"),
            _field("net_cents", pa.int64(), "gross_cents less refunded_cents"),
            _field("rules", pa.string(), "fingerprint of the rules that decided, 12 hex digits"),
        ]
    ),
    "One row an order that is not deleted: the note that planted it, and what it brought. Hour of placed_at.",
)

ORDER_QUARANTINE = Table(
    "order_quarantine",
    QUARANTINE.schema,
    "Lines of change files that could not be taken, with the reason and the bytes as received.",
)

ORDER_SOURCES = Table(
    "order_sources",
    pa.schema(
        [
            _field("source", pa.string(), "fingerprint of the content, 16 hex digits"),
            _field("name", pa.string(), "path under the folder"),
            _field("bytes", pa.int64(), "file size"),
            _field("modified_ns", pa.int64(), "the file's time: with name and size it tells a file without reading it"),
            _field("rows", pa.int64(), "lines that are not blank"),
            _field("landed_at", TIME, "when it was taken in"),
            _field("skipped", pa.int64(), "of the lines: those that say nothing of the shop's table, tombstones and the like"),
            _field("refused", pa.int64(), "of the lines: those in order_quarantine"),
            _field("next_byte", pa.int64(), "where the next part begins, of the (unpacked) file; null: this is the last"),
            _field("next_row", pa.int64(), "the line that begins there"),
        ]
    ),
    "One row a change file or catalogue file that was taken; a great one is taken in parts, a row each, bytes null but for the last.",
    partitioned=False,
)

ORDER_BATCHES = Table(
    "order_batches",
    pa.schema(
        [
            HOUR,
            _field("batch", pa.int64(), "number of the batch, from 0"),
            _field("taken_at", TIME, "when"),
            _field("actions_version", pa.int64(), "version of planting_actions in which clicks were looked up"),
            _field("rules", pa.string(), "fingerprint of the rules"),
            _field("files", pa.int64(), "files taken"),
            _field("changes", pa.int64(), "changes taken"),
            _field("repeats", pa.int64(), "changes that were there before"),
            _field("quarantined", pa.int64(), "lines that could not be taken, and files that could not be read"),
            _field("orders", pa.int64(), "orders whose row changed"),
            _field("hours", pa.int64(), "hours of order_attributions made anew"),
            _field("lines", pa.int64(), "lines that are not blank, and files that could not be read"),
            _field("skipped", pa.int64(), "lines that say nothing of the shop's table"),
            _field("pairs", pa.int64(), "lines of the catalogue"),
            _field("told", pa.int64(), "lines with changes; lines = told + pairs + skipped + quarantined"),
            _field("rescued", pa.int64(), "changes of which a value lies in `rescued`"),
        ]
    ),
    "The book of what was taken when, and from which clicks. Hour of taken_at.",
)

TABLES = (
    ORDER_CHANGES, ORDERS, ORDER_ATTRIBUTIONS, NOTE_PRODUCTS, PLANTING_ACTIONS, ORDER_QUARANTINE, ORDER_SOURCES, ORDER_BATCHES,
)  # fmt: skip
