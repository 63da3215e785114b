package glasshouse.bench;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** (user, note): what sessions are kept by. Sixteen bytes, no boxes. */
public final class Key {
    final long user;
    final long note;

    Key(long user, long note) {
        this.user = user;
        this.note = note;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Key && ((Key) other).user == user && ((Key) other).note == note;
    }

    @Override
    public int hashCode() {
        return Long.hashCode(user * 0x9E3779B97F4A7C15L + note);
    }

    static final class Serializer extends FixedSerializer<Key> {
        Serializer() {
            super(16);
        }

        @Override
        public boolean isImmutableType() {
            return true;
        }

        @Override
        public Key createInstance() {
            return new Key(0, 0);
        }

        @Override
        public Key copy(Key from, Key reuse) {
            return from;
        }

        @Override
        public Key copy(Key from) {
            return from;
        }

        @Override
        public void serialize(Key key, DataOutputView out) throws IOException {
            out.writeLong(key.user);
            out.writeLong(key.note);
        }

        @Override
        public Key deserialize(Key reuse, DataInputView in) throws IOException {
            return new Key(in.readLong(), in.readLong());
        }

        @Override
        public TypeSerializerSnapshot<Key> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends FixedSerializer.Snapshot<Key> {
            public Snapshot() {
                super(Serializer::new);
            }
        }
    }
}
