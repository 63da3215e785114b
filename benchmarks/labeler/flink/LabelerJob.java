package glasshouse.bench;

import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.fs.Path;
import org.apache.flink.runtime.checkpoint.AbstractCheckpointStats;
import org.apache.flink.runtime.checkpoint.CheckpointStatsSnapshot;
import org.apache.flink.runtime.checkpoint.CheckpointStatsStatus;
import org.apache.flink.runtime.jobgraph.JobGraph;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * The labeler as a Flink job, on a cluster in this JVM: one task manager, as many slots as the job is parallel.
 *
 * <p>Arguments: the file of results, the folder of rows, a file that names the minutes' files, window and delay in µs,
 * then Flink settings as key=value.
 */
public final class LabelerJob {
    private LabelerJob() {}

    public static void main(String[] arguments) throws Exception {
        java.nio.file.Path results = java.nio.file.Path.of(arguments[0]);
        Path rows = new Path(arguments[1]);
        List<String> names = Files.readAllLines(java.nio.file.Path.of(arguments[2]));
        Path[] files = names.stream().map(Path::new).toArray(Path[]::new);
        long window = Long.parseLong(arguments[3]);
        long delay = Long.parseLong(arguments[4]);
        Configuration settings = new Configuration();
        for (int i = 5; i < arguments.length; i++) {
            String[] pair = arguments[i].split("=", 2);
            settings.setString(pair[0], pair[1]);
        }
        Files.writeString(results, run(jobGraph(settings, files, rows, window, delay), settings));
    }

    private static JobGraph jobGraph(Configuration settings, Path[] files, Path rows, long window, long delay) {
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(settings);
        WatermarkStrategy<Event> watermarks = WatermarkStrategy.<Event>forGenerator(context -> new Bounded(delay))
                .withTimestampAssigner((event, before) -> event.time);
        env.fromSource(MinuteFiles.source(files), watermarks, "minutes")
                .keyBy(event -> new Key(event.user, event.note), new FixedType<>(Key.class, new Key.Serializer()))
                .process(new SessionFunction(window), PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO)
                .sinkTo(RowFiles.sink(rows));
        return env.getStreamGraph().getJobGraph();
    }

    private static String run(JobGraph job, Configuration settings) throws Exception {
        MiniClusterConfiguration cluster = new MiniClusterConfiguration.Builder()
                .setConfiguration(settings)
                .setNumTaskManagers(1)
                .setNumSlotsPerTaskManager(job.getMaximumParallelism())
                .withRandomPorts()
                .build();
        try (MiniCluster flink = new MiniCluster(cluster)) {
            flink.start();
            JobID id = flink.submitJob(job).get().getJobID();
            flink.requestJobResult(id).get().toJobExecutionResult(LabelerJob.class.getClassLoader());
            long end = System.nanoTime();
            CheckpointStatsSnapshot stats = flink.getExecutionGraph(id).get().getCheckpointStatsSnapshot();
            return "{" + Progress.json(end) + ", \"checkpoints\": " + completed(stats) + ", \"checkpoints_failed\": "
                    + stats.getCounts().getNumberOfFailedCheckpoints() + "}\n";
        }
    }

    /** [[seconds, bytes written by it, bytes of the whole state], ...] of the completed checkpoints. */
    private static String completed(CheckpointStatsSnapshot stats) {
        List<String> checkpoints = new ArrayList<>();
        for (AbstractCheckpointStats one : stats.getHistory().getCheckpoints()) {
            if (one.getStatus() == CheckpointStatsStatus.COMPLETED) {
                checkpoints.add("[" + one.getEndToEndDuration() / 1e3 + ", " + one.getCheckpointedSize() + ", "
                        + one.getStateSize() + "]");
            }
        }
        return checkpoints.toString();
    }

    /** Bounded out-of-orderness in µs: Flink's own counts in ms. A watermark w says that no event <= w is to come. */
    private static final class Bounded implements WatermarkGenerator<Event> {
        private final long delay;
        private long greatest;

        Bounded(long delay) {
            this.delay = delay;
            this.greatest = Long.MIN_VALUE + delay + 1;
        }

        @Override
        public void onEvent(Event event, long time, WatermarkOutput output) {
            greatest = Math.max(greatest, time);
        }

        @Override
        public void onPeriodicEmit(WatermarkOutput output) {
            output.emitWatermark(new Watermark(greatest - delay - 1));
        }
    }
}
