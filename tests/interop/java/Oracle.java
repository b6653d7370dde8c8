import com.fasterxml.jackson.databind.ObjectMapper;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.FileLogInputStream.FileChannelRecordBatch;
import org.apache.kafka.common.record.internal.FileRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.utils.Exit;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.storage.internals.checkpoint.LeaderEpochCheckpointFile;
import org.apache.kafka.storage.internals.checkpoint.PartitionMetadata;
import org.apache.kafka.storage.internals.checkpoint.PartitionMetadataFile;
import org.apache.kafka.storage.internals.epoch.LeaderEpochFileCache;
import org.apache.kafka.storage.internals.log.AbortedTxn;
import org.apache.kafka.storage.internals.log.EpochEntry;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.LogFileUtils;
import org.apache.kafka.storage.internals.log.LogSegment;
import org.apache.kafka.storage.internals.log.OffsetIndex;
import org.apache.kafka.storage.internals.log.OffsetPosition;
import org.apache.kafka.storage.internals.log.ProducerStateManager;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;
import org.apache.kafka.storage.internals.log.TimeIndex;
import org.apache.kafka.storage.internals.log.TimestampOffset;
import org.apache.kafka.storage.internals.log.TransactionIndex;
import org.apache.kafka.tools.DumpLogSegments;

/**
 * The oracle of logstore's tests: a few commands over Apache Kafka's own storage classes.
 *
 * <p>The tests never compare our bytes with what we believe Kafka would write; they compare them
 * with what these classes do write. What this program adds is only the plumbing. The commands:
 *
 * <pre>
 * append DIR BASE INTERVAL INPUT [--no-roll | --crash]
 *                              the batches of INPUT, one at a time, through LogSegment into DIR
 * recover DIR BASE INTERVAL    LogSegment's own recovery; prints how many bytes it cut off
 * describe FILE [--brief]      one JSON line for each record of a .log
 * batches FILE                 one JSON line for each batch of a .log
 * index FILE                   one JSON line for each entry of an .index, .timeindex or .txnindex
 * epochs DIR                   one JSON line for each entry of a leader-epoch-checkpoint
 * metadata DIR                 one JSON line with what a partition.metadata says
 * dump ARGUMENT...             Kafka's DumpLogSegments, in this process
 * write DIR                    the golden segments (Golden.java)
 * snapshot DIR                 the golden partition with all of its side files (Golden.java)
 * serve                        commands from standard input, each a JSON array on a line of its own
 * </pre>
 *
 * <p>Exit status: 0, or 1 when Kafka refused the data (its message on stderr), or 2 for bad usage.
 */
public final class Oracle {
    /** Byte strings longer than this are shown by --brief as their size and SHA-256. */
    private static final int BRIEF_BYTES = 64;

    private static final ObjectMapper JSON = new ObjectMapper();

    /** The directory's name carries no meaning here, but two of Kafka's classes ask for one. */
    private static final TopicPartition PARTITION = new TopicPartition("golden", 0);

    private Oracle() {
    }

    public static void main(String[] args) throws Exception {
        // DumpLogSegments ends the process on some errors; in `serve` it must not.
        Exit.setExitProcedure((status, message) -> {
            throw new Stopped(status, message);
        });
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        PrintStream err = new PrintStream(System.err, true, StandardCharsets.UTF_8);
        int status = args.length == 1 && args[0].equals("serve")
            ? serve(out)
            : run(Arrays.asList(args), out, err);
        out.flush();
        // LogSegment --crash leaves files mapped, and a worker thread must not keep us alive.
        Runtime.getRuntime().halt(status);
    }

    /** Answers each line of standard input by one line: {"status", "out", "err"}. */
    private static int serve(PrintStream out) throws IOException {
        BufferedReader in = new BufferedReader(
            new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            List<String> command = Arrays.asList(JSON.readValue(line, String[].class));
            ByteArrayOutputStream stdout = new ByteArrayOutputStream();
            ByteArrayOutputStream stderr = new ByteArrayOutputStream();
            int status;
            try (PrintStream o = new PrintStream(stdout, false, StandardCharsets.UTF_8);
                 PrintStream e = new PrintStream(stderr, false, StandardCharsets.UTF_8)) {
                status = run(command, o, e);
            }
            Map<String, Object> answer = new LinkedHashMap<>();
            answer.put("status", status);
            answer.put("out", stdout.toString(StandardCharsets.UTF_8));
            answer.put("err", stderr.toString(StandardCharsets.UTF_8));
            out.println(JSON.writeValueAsString(answer));
            out.flush();
        }
        return 0;
    }

    /** Runs one command. Whatever Kafka throws is an answer, so everything is caught here. */
    private static int run(List<String> args, PrintStream out, PrintStream err) {
        try {
            return dispatch(args, out, err);
        } catch (Stopped stopped) {
            err.println("exit " + stopped.status + ": " + stopped.getMessage());
            return stopped.status;
        } catch (IndexOutOfBoundsException | NumberFormatException usage) {
            err.println("bad usage of " + args + ": " + usage);
            return 2;
        } catch (Throwable refused) {
            err.println(refused.getClass().getSimpleName() + ": " + refused.getMessage());
            return 1;
        }
    }

    private static int dispatch(List<String> args, PrintStream out, PrintStream err)
            throws Exception {
        String command = args.isEmpty() ? "" : args.get(0);
        switch (command) {
            case "append":
                append(new File(args.get(1)), Long.parseLong(args.get(2)),
                    Integer.parseInt(args.get(3)), Path.of(args.get(4)),
                    args.subList(5, args.size()));
                return 0;
            case "recover":
                out.println(recover(new File(args.get(1)), Long.parseLong(args.get(2)),
                    Integer.parseInt(args.get(3))));
                return 0;
            case "describe":
                for (Map<String, Object> record
                        : records(new File(args.get(1)), args.contains("--brief"))) {
                    out.println(JSON.writeValueAsString(record));
                }
                return 0;
            case "batches":
                for (Map<String, Object> batch : batches(new File(args.get(1)))) {
                    out.println(JSON.writeValueAsString(batch));
                }
                return 0;
            case "index":
                for (Map<String, Object> entry : indexEntries(new File(args.get(1)))) {
                    out.println(JSON.writeValueAsString(entry));
                }
                return 0;
            case "epochs":
                for (Map<String, Object> entry : leaderEpochs(new File(args.get(1)))) {
                    out.println(JSON.writeValueAsString(entry));
                }
                return 0;
            case "metadata":
                out.println(JSON.writeValueAsString(metadata(new File(args.get(1)))));
                return 0;
            case "dump":
                dump(args.subList(1, args.size()), out, err);
                return 0;
            case "write":
                Golden.writeSegments(new File(args.get(1)));
                return 0;
            case "snapshot":
                Golden.writePartition(new File(args.get(1)));
                return 0;
            default:
                err.println("no such command: '" + command + "'");
                return 2;
        }
    }

    // ---- writing ---------------------------------------------------------------------------

    /** A segment opened for appending as a broker opens a new one, or an existing one. */
    static LogSegment open(File dir, long baseOffset, int indexIntervalBytes) throws IOException {
        Map<String, Object> properties = new HashMap<>();
        properties.put("index.interval.bytes", indexIntervalBytes);
        LogConfig config = new LogConfig(properties);
        boolean exists = LogFileUtils.logFile(dir, baseOffset).exists();
        LogSegment segment = LogSegment.open(dir, baseOffset, config, Time.SYSTEM, exists,
            config.initFileSize(), config.preallocate, "");
        if (exists) {
            // A closed index has no room left; a broker makes some when it opens its last segment.
            segment.resizeIndexes(config.maxIndexSize);
        }
        return segment;
    }

    /** Gives each batch to the segment in a call of its own: the offsets stay as they are. */
    static void appendEach(LogSegment segment, MemoryRecords records) throws IOException {
        int position = 0;
        for (MutableRecordBatch batch : records.batches()) {
            batch.ensureValid();
            int size = batch.sizeInBytes();
            segment.append(batch.lastOffset(), records.slice(position, size));
            position += size;
        }
        if (position != records.sizeInBytes()) {
            throw new IOException("the input ends in " + (records.sizeInBytes() - position)
                + " bytes that are no batch");
        }
    }

    /**
     * By default the segment is rolled and closed. --no-roll closes it as the active segment of a
     * broker that stops cleanly; --crash leaves it as a killed broker would, with preallocated
     * indexes.
     */
    private static void append(File dir, long baseOffset, int indexIntervalBytes, Path input,
                               List<String> options) throws IOException {
        Files.createDirectories(dir.toPath());
        LogSegment segment = open(dir, baseOffset, indexIntervalBytes);
        ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(input));
        appendEach(segment, MemoryRecords.readableRecords(bytes));
        segment.flush();
        if (options.contains("--crash")) {
            return;
        }
        if (!options.contains("--no-roll")) {
            segment.onBecomeInactiveSegment();
        }
        segment.close();
    }

    /**
     * Rebuilds what can be rebuilt from a .log, as a broker does after a crash: the indexes, the
     * producers' state (as a .snapshot at the segment's end) and the leader epochs. Returns how
     * many bytes were cut off: everything from the first batch on that is not valid.
     */
    static int recover(File dir, long baseOffset, int indexIntervalBytes) throws IOException {
        LogDirFailureChannel failures = new LogDirFailureChannel(1);
        ProducerStateManager producers = new ProducerStateManager(PARTITION, dir, 900_000,
            new ProducerStateManagerConfig(86_400_000, false), Time.SYSTEM);
        // The scheduler is only used for truncation, which does not happen to a new cache.
        LeaderEpochFileCache epochs = new LeaderEpochFileCache(PARTITION,
            new LeaderEpochCheckpointFile(LeaderEpochCheckpointFile.newFile(dir), failures), null);
        LogSegment segment = open(dir, baseOffset, indexIntervalBytes);
        int truncated = segment.recover(producers, epochs);
        segment.flush();
        segment.close();
        producers.takeSnapshot();
        return truncated;
    }

    // ---- reading ---------------------------------------------------------------------------

    static List<Map<String, Object>> records(File file, boolean brief) throws Exception {
        List<Map<String, Object>> lines = new ArrayList<>();
        try (FileRecords log = FileRecords.open(file, false)) {
            for (FileChannelRecordBatch batch : log.batches()) {
                batch.ensureValid();
                for (Record record : batch) {
                    record.ensureValid();
                    lines.add(describe(batch, record, brief));
                }
            }
        }
        return lines;
    }

    private static Map<String, Object> describe(RecordBatch batch, Record record, boolean brief)
            throws Exception {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("base_offset", batch.baseOffset());
        line.put("magic", batch.magic());
        line.put("offset", record.offset());
        line.put("timestamp", record.timestamp());
        line.put("sequence", record.sequence());
        line.put("key", bytes(record.key(), brief));
        line.put("value", bytes(record.value(), brief));
        List<Object> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            byte[] value = header.value();
            headers.add(Arrays.asList(header.key(),
                bytes(value == null ? null : ByteBuffer.wrap(value), brief)));
        }
        line.put("headers", headers);
        if (batch.isControlBatch()) {
            line.put("control", ControlRecordType.parse(record.key()).name());
        }
        return line;
    }

    private static Object bytes(ByteBuffer buffer, boolean brief) throws Exception {
        if (buffer == null) {
            return null;
        }
        byte[] raw = new byte[buffer.remaining()];
        buffer.duplicate().get(raw);
        if (!brief || raw.length <= BRIEF_BYTES) {
            return Base64.getEncoder().encodeToString(raw);
        }
        StringBuilder hex = new StringBuilder();
        for (byte b : MessageDigest.getInstance("SHA-256").digest(raw)) {
            hex.append(String.format("%02x", b));
        }
        Map<String, Object> digest = new LinkedHashMap<>();
        digest.put("size", raw.length);
        digest.put("sha256", hex.toString());
        return digest;
    }

    static List<Map<String, Object>> batches(File file) throws IOException {
        List<Map<String, Object>> lines = new ArrayList<>();
        try (FileRecords log = FileRecords.open(file, false)) {
            for (FileChannelRecordBatch batch : log.batches()) {
                Map<String, Object> line = new LinkedHashMap<>();
                line.put("position", batch.position());
                line.put("size", batch.sizeInBytes());
                line.put("magic", batch.magic());
                line.put("base_offset", batch.baseOffset());
                line.put("last_offset", batch.lastOffset());
                line.put("count", batch.countOrNull());
                line.put("compression", batch.compressionType().name);
                line.put("crc", batch.checksum());
                line.put("valid", batch.isValid());
                line.put("timestamp_type", batch.timestampType().name);
                line.put("max_timestamp", batch.maxTimestamp());
                line.put("leader_epoch", batch.partitionLeaderEpoch());
                line.put("producer_id", batch.producerId());
                line.put("producer_epoch", batch.producerEpoch());
                line.put("base_sequence", batch.baseSequence());
                line.put("last_sequence", batch.lastSequence());
                line.put("transactional", batch.isTransactional());
                line.put("control", batch.isControlBatch());
                line.put("delete_horizon_ms", batch.deleteHorizonMs().isPresent()
                    ? batch.deleteHorizonMs().getAsLong() : null);
                lines.add(line);
            }
        }
        return lines;
    }

    static List<Map<String, Object>> indexEntries(File file) throws IOException {
        if (!file.exists()) {
            throw new IOException("no such file: " + file);  // Kafka's classes would create it
        }
        List<Map<String, Object>> lines = new ArrayList<>();
        long baseOffset = LogFileUtils.offsetFromFile(file);
        if (file.getName().endsWith(".index")) {
            OffsetIndex index = new OffsetIndex(file, baseOffset, -1, false);
            try {
                index.sanityCheck();
                for (int i = 0; i < index.entries(); i++) {
                    OffsetPosition entry = index.entry(i);
                    Map<String, Object> line = new LinkedHashMap<>();
                    line.put("offset", entry.offset());
                    line.put("position", entry.position());
                    lines.add(line);
                }
            } finally {
                // close() would resize the file: looking must not change what is looked at.
                index.closeHandler();
            }
        } else if (file.getName().endsWith(".timeindex")) {
            TimeIndex index = new TimeIndex(file, baseOffset, -1, false);
            try {
                index.sanityCheck();
                for (int i = 0; i < index.entries(); i++) {
                    TimestampOffset entry = index.entry(i);
                    Map<String, Object> line = new LinkedHashMap<>();
                    line.put("timestamp", entry.timestamp());
                    line.put("offset", entry.offset());
                    lines.add(line);
                }
            } finally {
                index.closeHandler();
            }
        } else {
            try (TransactionIndex index = new TransactionIndex(baseOffset, file)) {
                index.sanityCheck();
                for (AbortedTxn txn : index.allAbortedTxns()) {
                    Map<String, Object> line = new LinkedHashMap<>();
                    line.put("version", txn.version());
                    line.put("producer_id", txn.producerId());
                    line.put("first_offset", txn.firstOffset());
                    line.put("last_offset", txn.lastOffset());
                    line.put("last_stable_offset", txn.lastStableOffset());
                    lines.add(line);
                }
            }
        }
        return lines;
    }

    /** The entries as a broker takes them in: its cache keeps only what ascends. */
    private static List<Map<String, Object>> leaderEpochs(File dir) throws IOException {
        File file = LeaderEpochCheckpointFile.newFile(dir);
        if (!file.exists()) {
            throw new IOException("no such file: " + file);  // Kafka's class would create it
        }
        LeaderEpochFileCache cache = new LeaderEpochFileCache(PARTITION,
            new LeaderEpochCheckpointFile(file, new LogDirFailureChannel(1)), null);
        List<Map<String, Object>> lines = new ArrayList<>();
        for (EpochEntry entry : cache.epochEntries()) {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("epoch", entry.epoch());
            line.put("start_offset", entry.startOffset());
            lines.add(line);
        }
        return lines;
    }

    private static Map<String, Object> metadata(File dir) {
        PartitionMetadata metadata = new PartitionMetadataFile(
            PartitionMetadataFile.newFile(dir), new LogDirFailureChannel(1)).read();
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("version", metadata.version());
        line.put("topic_id", metadata.topicId().toString());
        return line;
    }

    /** The tool prints to System.out, so that is exchanged while it runs. */
    private static void dump(List<String> args, PrintStream out, PrintStream err)
            throws IOException {
        PrintStream realOut = System.out;
        PrintStream realErr = System.err;
        System.setOut(out);
        System.setErr(err);
        try {
            DumpLogSegments.main(args.toArray(new String[0]));
        } finally {
            System.out.flush();
            System.setOut(realOut);
            System.setErr(realErr);
        }
    }

    /** Thrown where Kafka's code would have ended the process. */
    private static final class Stopped extends RuntimeException {
        private static final long serialVersionUID = 1L;
        private final int status;

        Stopped(int status, String message) {
            super(message);
            this.status = status;
        }
    }
}
