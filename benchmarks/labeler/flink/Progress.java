package glasshouse.bench;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicLong;

/**
 * What is measured inside the job. The cluster is this JVM, so a static list reaches every task.
 *
 * <p>Time is counted from the first record read to the last one processed by the keyed tasks, with all sessions emitted
 * that were due; the end of the input then closes what is still open ("drain"), which a live job never does.
 */
final class Progress {
    private static final long MINUTE = 60_000_000L;
    private static final AtomicLong FIRST_READ = new AtomicLong(Long.MAX_VALUE);
    private static final AtomicLong FIRST_CPU = new AtomicLong(Long.MAX_VALUE);
    private static final List<Task> TASKS = new ArrayList<>();

    private Progress() {}

    static void reading() {
        FIRST_READ.accumulateAndGet(System.nanoTime(), Math::min);
        FIRST_CPU.accumulateAndGet(cpuNanos(), Math::min);
    }

    /** CPU time of this JVM: on a machine that is shared, wall clock says little. */
    private static long cpuNanos() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    static synchronized Task task() {
        Task task = new Task();
        TASKS.add(task);
        return task;
    }

    /** One keyed task's counts; written by its own thread alone and read when the job has ended. */
    static final class Task {
        long events;
        long late;
        long drainStart = Long.MAX_VALUE;
        long drainCpu;
        private long minute = Long.MIN_VALUE;
        private final TreeMap<Long, Long> passed = new TreeMap<>();

        void event(long watermark) {
            events++;
            long now = watermark == Long.MIN_VALUE ? Long.MIN_VALUE : Math.floorDiv(watermark, MINUTE);
            if (now > minute) {
                minute = now;
                passed.put(now, System.nanoTime());
            }
        }

        void draining() {
            if (drainStart == Long.MAX_VALUE) {
                drainStart = System.nanoTime();
                drainCpu = cpuNanos();
            }
        }
    }

    /** The measurements as members of a JSON object. */
    static String json(long end) {
        long events = 0;
        long late = 0;
        long last = 0;
        long cpu = 0;
        TreeMap<Long, Long> passed = new TreeMap<>();
        for (Task task : TASKS) {
            events += task.events;
            late += task.late;
            last = Math.max(last, Math.min(task.drainStart, end));
            cpu = Math.max(cpu, task.drainCpu);
            task.passed.forEach((minute, nanos) -> passed.merge(minute, nanos, Math::max));
        }
        List<String> minutes = new ArrayList<>();
        passed.forEach((minute, nanos) -> minutes.add("[" + minute + ", " + seconds(nanos) + "]"));
        return "\"events\": " + events + ", \"late\": " + late + ", \"seconds\": " + seconds(last)
                + ", \"cpu_s\": " + (cpu - FIRST_CPU.get()) / 1e9 + ", \"drain_s\": " + (end - last) / 1e9
                + ", \"watermark_passed\": " + minutes;
    }

    private static double seconds(long nanos) {
        return (nanos - FIRST_READ.get()) / 1e9;
    }
}
