package glasshouse.bench;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.FileSourceSplit;
import org.apache.flink.connector.file.src.assigners.FileSplitAssigner;
import org.apache.flink.connector.file.src.reader.SimpleStreamFormat;
import org.apache.flink.connector.file.src.reader.StreamFormat;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.fs.Path;

/** The log's minutes as a file source: fixed-width rows, whole files, handed to the readers in order of arrival. */
final class MinuteFiles {
    private MinuteFiles() {}

    static FileSource<Event> source(Path... files) {
        return FileSource.forRecordStreamFormat(new Format(), files).setSplitAssigner(InOrder::new).build();
    }

    static final class Format extends SimpleStreamFormat<Event> {
        @Override
        public StreamFormat.Reader<Event> createReader(Configuration config, FSDataInputStream stream) {
            Progress.reading();
            return new RowReader(stream);
        }

        @Override
        public TypeInformation<Event> getProducedType() {
            return new FixedType<>(Event.class, new Event.Serializer());
        }
    }

    private static final class RowReader implements StreamFormat.Reader<Event> {
        private static final int ROW_BYTES = 40;
        private final FSDataInputStream stream;
        private final ByteBuffer rows = ByteBuffer.allocate(ROW_BYTES * 1024).order(ByteOrder.LITTLE_ENDIAN);

        RowReader(FSDataInputStream stream) {
            this.stream = stream;
            rows.limit(0);
        }

        @Override
        public Event read() throws IOException {
            if (!rows.hasRemaining() && !fill()) {
                return null;
            }
            Event event = new Event();
            event.user = rows.getLong();
            event.note = rows.getLong();
            event.time = rows.getLong();
            event.seq = rows.getLong();
            event.dwell = rows.getInt();
            event.position = rows.getShort();
            event.channel = rows.get();
            event.action = rows.get();
            return event;
        }

        private boolean fill() throws IOException {
            int size = stream.readNBytes(rows.array(), 0, rows.capacity());
            if (size % ROW_BYTES != 0) {
                throw new EOFException("a minute's file ends within a row");
            }
            rows.position(0).limit(size);
            return size > 0;
        }

        @Override
        public void close() throws IOException {
            stream.close();
        }
    }

    /** Flink's own assigners promise no order; out of order, minutes would be late. */
    private static final class InOrder implements FileSplitAssigner {
        private final ArrayDeque<FileSourceSplit> splits;

        InOrder(Collection<FileSourceSplit> initial) {
            List<FileSourceSplit> sorted = new ArrayList<>(initial);
            sorted.sort(Comparator.comparing(split -> split.path().getPath()));
            splits = new ArrayDeque<>(sorted);
        }

        @Override
        public Optional<FileSourceSplit> getNext(String hostname) {
            return Optional.ofNullable(splits.poll());
        }

        @Override
        public void addSplits(Collection<FileSourceSplit> returned) {
            returned.forEach(splits::addFirst);
        }

        @Override
        public Collection<FileSourceSplit> remainingSplits() {
            return new ArrayList<>(splits);
        }
    }
}
