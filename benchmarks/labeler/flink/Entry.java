package glasshouse.bench;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** What is kept of a key, one of its list: an event that no timer has folded yet, or an open session. */
final class Entry {
    static final byte EVENT = 0;
    static final byte IMPRESSION_SESSION = 1;
    static final byte CLICK_SESSION = 2;
    static final long NONE = Long.MIN_VALUE;

    byte kind;
    long time; // of the event; start of the session
    long other; // the event's seq; first click of an impression session; impression session of a click session
    long dwell;
    int count; // impressions or clicks of a session
    short position;
    byte channel;
    byte code; // the event's action; the session's flags

    static Entry of(Event event) {
        Entry entry = new Entry();
        entry.time = event.time;
        entry.other = event.seq;
        entry.dwell = event.dwell;
        entry.position = event.position;
        entry.channel = event.channel;
        entry.code = event.action;
        return entry;
    }

    /** A session that opens at `event` with the context of `bearer`. */
    static Entry session(byte kind, Entry event, Entry bearer) {
        Entry session = new Entry();
        session.kind = kind;
        session.time = event.time;
        session.other = NONE;
        session.position = bearer.position;
        session.channel = bearer.channel;
        return session;
    }

    boolean opens() {
        return code <= Event.CLICK;
    }

    /** The fold's order of events: (time, order of the actions, event id). */
    static int inOrder(Entry one, Entry other) {
        int order = Long.compare(one.time, other.time);
        order = order != 0 ? order : Byte.compare(one.code, other.code);
        return order != 0 ? order : Long.compare(one.other, other.other);
    }

    static final class Serializer extends FixedSerializer<Entry> {
        Serializer() {
            super(-1);
        }

        @Override
        public Entry createInstance() {
            return new Entry();
        }

        @Override
        public Entry copy(Entry from, Entry to) {
            to.kind = from.kind;
            to.time = from.time;
            to.other = from.other;
            to.dwell = from.dwell;
            to.count = from.count;
            to.position = from.position;
            to.channel = from.channel;
            to.code = from.code;
            return to;
        }

        @Override
        public void serialize(Entry entry, DataOutputView out) throws IOException {
            out.writeByte(entry.kind);
            out.writeLong(entry.time);
            out.writeLong(entry.other);
            if (entry.kind == EVENT) {
                out.writeInt((int) entry.dwell);
            } else {
                out.writeLong(entry.dwell);
                out.writeInt(entry.count);
            }
            out.writeShort(entry.position);
            out.writeByte(entry.channel);
            out.writeByte(entry.code);
        }

        @Override
        public Entry deserialize(Entry entry, DataInputView in) throws IOException {
            entry.kind = in.readByte();
            entry.time = in.readLong();
            entry.other = in.readLong();
            if (entry.kind == EVENT) {
                entry.dwell = in.readInt();
            } else {
                entry.dwell = in.readLong();
                entry.count = in.readInt();
            }
            entry.position = in.readShort();
            entry.channel = in.readByte();
            entry.code = in.readByte();
            return entry;
        }

        @Override
        public TypeSerializerSnapshot<Entry> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends FixedSerializer.Snapshot<Entry> {
            public Snapshot() {
                super(Serializer::new);
            }
        }
    }
}
