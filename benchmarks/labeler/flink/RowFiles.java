package glasshouse.bench;

import java.io.IOException;
import org.apache.flink.api.common.serialization.BulkWriter;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.core.fs.Path;
import org.apache.flink.streaming.api.functions.sink.filesystem.bucketassigners.BasePathBucketAssigner;

/** Rows of bytes, exactly once: a file becomes visible with the checkpoint that covers it. */
final class RowFiles {
    private static final int BUFFER_BYTES = 1 << 16;

    private RowFiles() {}

    static FileSink<byte[]> sink(Path folder) {
        return FileSink.forBulkFormat(folder, Writer::new).withBucketAssigner(new BasePathBucketAssigner<>()).build();
    }

    /** Flink's local output stream has no buffer of its own. */
    private static final class Writer implements BulkWriter<byte[]> {
        private final FSDataOutputStream out;
        private final byte[] buffer = new byte[BUFFER_BYTES];
        private int size;

        Writer(FSDataOutputStream out) {
            this.out = out;
        }

        @Override
        public void addElement(byte[] row) throws IOException {
            if (size + row.length > BUFFER_BYTES) {
                flush();
            }
            System.arraycopy(row, 0, buffer, size, row.length);
            size += row.length;
        }

        @Override
        public void flush() throws IOException {
            out.write(buffer, 0, size);
            size = 0;
        }

        @Override
        public void finish() throws IOException {
            flush();
        }
    }
}
