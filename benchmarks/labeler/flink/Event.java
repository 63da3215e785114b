package glasshouse.bench;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** One event; the fields are those of FLINK_ROW in log.py. */
public final class Event {
    static final int IMPRESSION = 0;
    static final int CLICK = 1;
    static final int VIEW_END = 2;

    long user;
    long note;
    long time; // µs
    long seq; // place in the log: stands for the event id
    int dwell;
    short position;
    byte channel;
    byte action;

    static final class Serializer extends FixedSerializer<Event> {
        Serializer() {
            super(40);
        }

        @Override
        public Event createInstance() {
            return new Event();
        }

        @Override
        public Event copy(Event from, Event reuse) {
            reuse.user = from.user;
            reuse.note = from.note;
            reuse.time = from.time;
            reuse.seq = from.seq;
            reuse.dwell = from.dwell;
            reuse.position = from.position;
            reuse.channel = from.channel;
            reuse.action = from.action;
            return reuse;
        }

        @Override
        public void serialize(Event event, DataOutputView out) throws IOException {
            out.writeLong(event.user);
            out.writeLong(event.note);
            out.writeLong(event.time);
            out.writeLong(event.seq);
            out.writeInt(event.dwell);
            out.writeShort(event.position);
            out.writeByte(event.channel);
            out.writeByte(event.action);
        }

        @Override
        public Event deserialize(Event event, DataInputView in) throws IOException {
            event.user = in.readLong();
            event.note = in.readLong();
            event.time = in.readLong();
            event.seq = in.readLong();
            event.dwell = in.readInt();
            event.position = in.readShort();
            event.channel = in.readByte();
            event.action = in.readByte();
            return event;
        }

        @Override
        public TypeSerializerSnapshot<Event> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends FixedSerializer.Snapshot<Event> {
            public Snapshot() {
                super(Serializer::new);
            }
        }
    }
}
