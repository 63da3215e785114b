package glasshouse.bench;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.streaming.api.TimerService;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * The rules of docs/attribution.md on keyed state and event-time timers. Emits rows of ROW in flink.py as bytes.
 *
 * <p>Events are not folded at their own time: a session closes W after the event that opened it and never before, so
 * the timer at that moment folds all that came since. Until then an event that can open a session is appended to the
 * key's list unread (RocksDB: one merge, one timer). Only other actions look whether there is anything to belong to.
 */
final class SessionFunction extends KeyedProcessFunction<Key, Event, byte[]> {
    static final int ROW_BYTES = 50;
    private static final byte IMPRESSIONS = 0;
    private static final byte CLICKS = 1;
    private static final byte ORPHANS = 2;

    // By action, as in contract.ACTIONS; bits as in tables.FLAGS.
    private static final int[] SETS = {0, 0, 0, 1, 0, 2, 0, 4, 8, 16, 0, 32, 64};
    private static final int[] CLEARS = {0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 16, 0, 0};

    private final long window;
    private transient ListState<Entry> entries;
    private transient ByteBuffer row;
    private transient Progress.Task progress;

    // The key that a timer is at: its open sessions and its events in order.
    private transient Entry impression;
    private transient Entry click;
    private transient List<Entry> pending;

    SessionFunction(long window) {
        this.window = window;
    }

    @Override
    public void open(OpenContext context) {
        FixedType<Entry> type = new FixedType<>(Entry.class, new Entry.Serializer());
        entries = getRuntimeContext().getListState(new ListStateDescriptor<>("entries", type));
        row = ByteBuffer.allocate(ROW_BYTES).order(ByteOrder.LITTLE_ENDIAN);
        progress = Progress.task();
        pending = new ArrayList<>();
    }

    @Override
    public void processElement(Event event, Context context, Collector<byte[]> out) throws Exception {
        TimerService timers = context.timerService();
        long watermark = timers.currentWatermark();
        progress.event(watermark);
        if (event.time <= watermark) {
            progress.late++;
            return;
        }
        Entry entry = Entry.of(event);
        if (entry.opens()) {
            timers.registerEventTimeTimer(entry.time + window - 1);
        } else if (!followsAny(entry.time)) {
            timers.registerEventTimeTimer(entry.time); // an orphan, if nothing older arrives
        }
        entries.add(entry);
    }

    /** Whether the key has anything not younger: that has a timer, which sees to this event too. */
    private boolean followsAny(long time) throws Exception {
        for (Entry entry : entries.get()) {
            if (entry.time <= time) {
                return true;
            }
        }
        return false;
    }

    @Override
    public void onTimer(long time, OnTimerContext context, Collector<byte[]> out) throws Exception {
        long watermark = context.timerService().currentWatermark();
        if (watermark == Long.MAX_VALUE) {
            progress.draining();
        }
        load();
        if (impression == null && click == null && pending.isEmpty()) {
            return; // another timer of this key was first
        }
        Key key = context.getCurrentKey();
        int folded = 0;
        while (folded < pending.size() && pending.get(folded).time <= watermark) {
            Entry event = pending.get(folded++);
            close(event.time, key, out);
            fold(event, key, out);
        }
        close(watermark == Long.MAX_VALUE ? watermark : watermark + 1, key, out);
        keep(pending.subList(folded, pending.size()), context.timerService());
    }

    private void load() throws Exception {
        impression = null;
        click = null;
        pending.clear();
        for (Entry entry : entries.get()) {
            if (entry.kind == Entry.EVENT) {
                pending.add(entry);
            } else if (entry.kind == Entry.IMPRESSION_SESSION) {
                impression = entry;
            } else {
                click = entry;
            }
        }
        if (pending.size() > 1) {
            pending.sort(Entry::inOrder);
        }
    }

    /** Write back what is still open, with the timer at which the next of it can end. */
    private void keep(List<Entry> rest, TimerService timers) throws Exception {
        List<Entry> kept = new ArrayList<>(rest);
        long next = Long.MAX_VALUE;
        for (Entry session : new Entry[] {impression, click}) {
            if (session != null) {
                next = Math.min(next, session.time + window - 1);
                kept.add(session);
            }
        }
        if (kept.isEmpty()) {
            entries.clear();
            return;
        }
        if (next == Long.MAX_VALUE) {
            Entry first = rest.get(0);
            next = first.opens() ? first.time + window - 1 : first.time;
        }
        timers.registerEventTimeTimer(next);
        entries.update(kept);
    }

    /** Emit the sessions that have ended at `now`: windows are half-open. */
    private void close(long now, Key key, Collector<byte[]> out) {
        if (impression != null && now >= impression.time + window) {
            out.collect(sessionRow(IMPRESSIONS, key, impression));
            impression = null;
        }
        if (click != null && now >= click.time + window) {
            out.collect(sessionRow(CLICKS, key, click));
            click = null;
        }
    }

    private void fold(Entry event, Key key, Collector<byte[]> out) {
        if (event.code == Event.IMPRESSION) {
            if (impression == null) {
                impression = Entry.session(Entry.IMPRESSION_SESSION, event, event);
            }
            impression.count++;
            return;
        }
        if (event.code == Event.CLICK) {
            if (impression != null && impression.other == Entry.NONE) {
                impression.other = event.time;
            }
            if (click == null) {
                click = Entry.session(Entry.CLICK_SESSION, event, impression == null ? event : impression);
                click.other = impression == null ? Entry.NONE : impression.time;
            }
            click.count++;
            return;
        }
        Entry owner = click != null ? click : impression;
        if (owner == null) {
            out.collect(row(ORPHANS, key, event, (byte) 0, event.code));
            return;
        }
        if (event.code == Event.VIEW_END) {
            owner.dwell += event.dwell;
        }
        owner.code = (byte) ((owner.code | SETS[event.code]) & ~CLEARS[event.code]);
    }

    private byte[] sessionRow(byte table, Key key, Entry session) {
        return row(table, key, session, session.code, (byte) 0);
    }

    /** One buffer for all rows: the sink is chained to this function and copies at once. */
    private byte[] row(byte table, Key key, Entry entry, byte flags, byte action) {
        row.clear();
        row.putLong(key.user).putLong(key.note).putLong(entry.time).putLong(entry.other).putLong(entry.dwell);
        row.putInt(entry.count).putShort(entry.position).put(entry.channel).put(flags).put(table).put(action);
        return row.array();
    }
}
