import com.fasterxml.jackson.databind.ObjectMapper;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.KRaftVersionRecord;
import org.apache.kafka.common.message.LeaderChangeMessage;
import org.apache.kafka.common.message.SnapshotFooterRecord;
import org.apache.kafka.common.message.SnapshotHeaderRecord;
import org.apache.kafka.common.message.VotersRecord;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.ByteBufferOutputStream;
import org.apache.kafka.storage.internals.checkpoint.PartitionMetadataFile;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.LogFileUtils;
import org.apache.kafka.storage.internals.log.LogSegment;
import org.apache.kafka.storage.internals.log.ProducerStateManager;

/**
 * The golden files: segments and side files that Kafka's own classes write.
 *
 * <p>Nothing here depends on the clock, the machine or chance, so that the same version of Kafka
 * writes the same bytes again. (A codec's library may compress differently in another version;
 * then the bytes change and the meaning does not.) Every segment goes batch by batch through
 * LogSegment and is rolled, so that the indexes beside it are Kafka's as well.
 */
final class Golden {
    /** Small, so that segments of a few kilobytes get several index entries. */
    static final int INDEX_INTERVAL_BYTES = 300;

    /** All times are relative to this one: 2023-11-14T22:13:20Z. */
    private static final long T0 = 1_700_000_000_000L;

    private static final byte V0 = RecordBatch.MAGIC_VALUE_V0;
    private static final byte V1 = RecordBatch.MAGIC_VALUE_V1;
    private static final byte V2 = RecordBatch.MAGIC_VALUE_V2;
    private static final TimestampType CREATE = TimestampType.CREATE_TIME;
    private static final TimestampType APPEND = TimestampType.LOG_APPEND_TIME;

    private Golden() {
    }

    // ---- the segments ----------------------------------------------------------------------

    static void writeSegments(File root) throws IOException {
        for (CompressionType codec : CompressionType.values()) {
            for (byte magic = V0; magic <= V2; magic++) {
                // zstd came with magic 2: Kafka itself refuses it in older batches.
                if (codec != CompressionType.ZSTD || magic == V2) {
                    String name = "v" + magic + "-" + codec.name + "-0";
                    long base = magic * 1000L;
                    segment(root, name, base, everyShape(magic, codec, base));
                }
            }
        }
        segment(root, "v1-logappendtime-0", 0, logAppendTime(V1));
        segment(root, "v2-logappendtime-0", 0, logAppendTime(V2));
        segment(root, "v2-idempotent-0", 0, idempotent());
        segment(root, "v2-transactions-0", 50, transactions(50));
        segment(root, "v2-control-0", 0, controlBatches());
        segment(root, "v2-deletehorizon-0", 0, deleteHorizon());
        for (byte magic = V0; magic <= V2; magic++) {
            segment(root, "v" + magic + "-compacted-0", 0, compacted(magic));
        }
        segment(root, "v0-holes-0", 100, holes(V0, 100));
        segment(root, "v1-holes-0", 100, holes(V1, 100));
        segment(root, "mixed-0", 5_000_000_000L, mixed(5_000_000_000L));
        segment(root, "v2-timestamps-0", 0, timestamps());
    }

    private static void segment(File root, String name, long base, List<MemoryRecords> records)
            throws IOException {
        File dir = new File(root, name);
        Files.createDirectories(dir.toPath());
        LogSegment segment = Oracle.open(dir, base, INDEX_INTERVAL_BYTES);
        for (MemoryRecords each : records) {
            Oracle.appendEach(segment, each);
        }
        segment.onBecomeInactiveSegment();
        segment.close();
        writeSidecar(dir, base);
    }

    /** Writes what `batches` and `describe --brief` say, with the indexes, beside the segment. */
    private static void writeSidecar(File dir, long base) throws IOException {
        File log = LogFileUtils.logFile(dir, base);
        StringBuilder json = new StringBuilder("{\n\"index_interval_bytes\": ");
        json.append(INDEX_INTERVAL_BYTES);
        try {
            list(json, "batches", Oracle.batches(log));
            list(json, "records", Oracle.records(log, true));
            list(json, "index", Oracle.indexEntries(LogFileUtils.offsetIndexFile(dir, base)));
            list(json, "timeindex", Oracle.indexEntries(LogFileUtils.timeIndexFile(dir, base)));
            File txnIndex = LogFileUtils.transactionIndexFile(dir, base);
            if (txnIndex.exists()) {
                list(json, "txnindex", Oracle.indexEntries(txnIndex));
            }
        } catch (IOException | RuntimeException e) {
            throw e;
        } catch (Exception e) {
            throw new IOException(e);
        }
        json.append("\n}\n");
        Files.writeString(Path.of(log.getPath().replaceAll("\\.log$", ".json")), json);
    }

    /** One element a line, so that a difference is readable. */
    private static void list(StringBuilder json, String name, List<?> elements) throws IOException {
        ObjectMapper mapper = new ObjectMapper();
        List<String> lines = new ArrayList<>();
        for (Object element : elements) {
            lines.add(mapper.writeValueAsString(element));
        }
        json.append(",\n\"").append(name).append("\": [\n");
        json.append(String.join(",\n", lines)).append("\n]");
    }

    /** A plain segment: each kind of key, value, header and batch, in one magic and codec. */
    private static List<MemoryRecords> everyShape(byte magic, CompressionType codec, long base) {
        List<MemoryRecords> out = new ArrayList<>();
        List<SimpleRecord> shapes = new ArrayList<>();
        // The largest timestamp stands in the middle: a time index that names a record shows which.
        shapes.add(record(T0 + 10, utf8("key"), utf8("value")));
        shapes.add(record(T0 + 20, null, utf8("no key")));
        shapes.add(record(T0 + 90, utf8("tombstone"), null));
        shapes.add(record(T0 + 90, utf8("empty value"), new byte[0]));
        shapes.add(record(T0 + 30, new byte[0], utf8("empty key")));
        shapes.add(record(T0 + 40, null, null));
        shapes.add(record(T0 + 50, utf8("ключ-鍵-🔑"), utf8("Größe, λόγος, 値, 🎉")));
        shapes.add(record(T0 + 60, new byte[] {0, -1, 127, -128}, new byte[] {-1, 0, 10, 13}));
        if (magic == V2) {
            shapes.add(record(T0 + 70, utf8("headers"), utf8("with"),
                header("content-type", utf8("text/plain")), header("twice", utf8("1")),
                header("twice", utf8("2")), header("null", null), header("empty", new byte[0]),
                header("ключ", utf8("🎉")), header("", utf8("empty header key"))));
        }
        out.add(batch(magic, codec, base, 0, shapes));
        long offset = base + shapes.size();

        out.add(batch(magic, codec, offset, 0, List.of(record(T0 + 100, utf8("one"), utf8("1")))));
        offset += 1;

        // More than the 32 KB of a snappy block and the 64 KB of an LZ4 block.
        List<SimpleRecord> large = new ArrayList<>();
        int count = codec == CompressionType.NONE ? 1 : 9;
        int repeats = codec == CompressionType.NONE ? 20 : 330;
        for (int i = 0; i < count; i++) {
            byte[] value = utf8(("line " + i + " of a long text; ").repeat(repeats));
            large.add(record(T0 + 200 + i, utf8("large-" + i), value));
        }
        out.add(batch(magic, codec, offset, 1, large));
        offset += count;

        // Bytes that no codec can shrink: LZ4 then stores a block as it is, with a flag.
        byte[] noise = new byte[1500];
        new Random(42).nextBytes(noise);
        out.add(batch(magic, codec, offset, 1, List.of(record(T0 + 300, utf8("noise"), noise))));
        offset += 1;

        // A hole in the offsets between batches, and a time that runs backwards.
        offset += 100;
        out.add(batch(magic, codec, offset, 2, List.of(
            record(T0 - 1000, utf8("late"), utf8("older than everything before")),
            record(T0 - 999, utf8("late"), utf8("again")))));
        return out;
    }

    /** A broker that stamps its own time changes the batch and leaves the records as they came. */
    private static List<MemoryRecords> logAppendTime(byte magic) {
        List<MemoryRecords> out = new ArrayList<>();
        long offset = 0;
        for (CompressionType codec : List.of(CompressionType.NONE, CompressionType.GZIP)) {
            MemoryRecords records = batch(magic, codec, offset, 0, List.of(
                record(T0 + 1, utf8("a"), utf8("created at 1")),
                record(T0 + 3, utf8("b"), utf8("created at 3")),
                record(T0 + 2, utf8("c"), utf8("created at 2"))));
            for (MutableRecordBatch each : records.batches()) {
                each.setMaxTimestamp(APPEND, T0 + 5000 + offset);
            }
            out.add(records);
            offset += 3;
        }
        // What a builder writes that knows the broker's time from the start.
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), magic,
            Compression.of(CompressionType.GZIP).build(), APPEND, offset, T0 + 6000);
        builder.append(record(T0 + 1, utf8("d"), utf8("created at 1")));
        builder.append(record(T0 + 2, utf8("e"), utf8("created at 2")));
        out.add(builder.build());
        return out;
    }

    private static List<MemoryRecords> idempotent() {
        List<MemoryRecords> out = new ArrayList<>();
        long offset = 0;
        for (int i = 0; i < 7; i++) {
            out.add(MemoryRecords.withIdempotentRecords(V2, offset, Compression.NONE, 4001L,
                (short) 3, i * 2, 5,
                record(T0 + i, utf8("k" + i), utf8("first")),
                record(T0 + i, utf8("k" + i), utf8("second"))));
            offset += 2;
        }
        // Sequence numbers wrap to zero after the largest int, also inside a batch.
        out.add(MemoryRecords.withIdempotentRecords(V2, offset, Compression.NONE, 4002L, (short) 0,
            Integer.MAX_VALUE - 1, 5,
            record(T0 + 10, utf8("w"), utf8("max - 1")), record(T0 + 11, utf8("w"), utf8("max")),
            record(T0 + 12, utf8("w"), utf8("0")), record(T0 + 13, utf8("w"), utf8("1"))));
        return out;
    }

    /** Three producers: one commits, one aborts twice, one is still inside its transaction. */
    private static List<MemoryRecords> transactions(long base) {
        long committer = 9001L;
        long aborter = 9002L;
        long undecided = 9003L;
        List<MemoryRecords> out = new ArrayList<>();
        long offset = base;
        out.add(transactional(offset, committer, 0, 7, 0, "c1", "c2", "c3"));
        offset += 3;
        out.add(transactional(offset, aborter, 0, 7, 10, "a1", "a2"));
        offset += 2;
        out.add(MemoryRecords.withRecords(V2, offset, Compression.gzip().build(), CREATE,
            record(T0 + 20, utf8("plain"), utf8("outside of any transaction"))));
        offset += 1;
        out.add(marker(offset++, committer, 0, 7, 30, ControlRecordType.COMMIT));
        out.add(transactional(offset, undecided, 0, 7, 40, "u1"));
        offset += 1;
        out.add(marker(offset++, aborter, 0, 7, 50, ControlRecordType.ABORT));
        // A new leader, then the aborter's next transaction, in a later epoch of its own.
        out.add(transactional(offset, aborter, 1, 8, 60, "a3"));
        offset += 1;
        out.add(transactional(offset, committer, 0, 8, 70, "c4"));
        offset += 1;
        out.add(marker(offset++, aborter, 1, 8, 80, ControlRecordType.ABORT));
        out.add(marker(offset++, committer, 0, 8, 90, ControlRecordType.COMMIT));
        out.add(transactional(offset, undecided, 0, 8, 100, "u2", "u3"));
        offset += 2;
        // A marker without data: its producer is known by its marker alone.
        out.add(marker(offset, 9004L, 2, 8, 110, ControlRecordType.ABORT));
        return out;
    }

    /** The sequence numbers continue those of the producer's earlier batches in transactions(). */
    private static MemoryRecords transactional(long offset, long producerId, int producerEpoch,
                                               int leaderEpoch, long time, String... values) {
        int sequence = values[0].charAt(1) - '1';
        if (producerEpoch > 0) {
            sequence = 0;
        }
        SimpleRecord[] records = new SimpleRecord[values.length];
        for (int i = 0; i < values.length; i++) {
            records[i] = record(T0 + time + i, utf8("k"), utf8(values[i]));
        }
        return MemoryRecords.withTransactionalRecords(V2, offset, Compression.NONE, producerId,
            (short) producerEpoch, sequence, leaderEpoch, records);
    }

    private static MemoryRecords marker(long offset, long producerId, int producerEpoch,
                                        int leaderEpoch, long time, ControlRecordType type) {
        return MemoryRecords.withEndTransactionMarker(offset, T0 + time, leaderEpoch, producerId,
            (short) producerEpoch, new EndTransactionMarker(type, 13));
    }

    /** One batch of each control type that Kafka has. */
    private static List<MemoryRecords> controlBatches() {
        List<MemoryRecords> out = new ArrayList<>();
        long offset = 0;
        LeaderChangeMessage change = new LeaderChangeMessage()
            .setLeaderId(2)
            .setVoters(List.of(voter(1), voter(2), voter(3)))
            .setGrantingVoters(List.of(voter(2), voter(3)));
        out.add(MemoryRecords.withLeaderChangeMessage(offset, T0 + offset, 4,
            ByteBuffer.allocate(512), change));
        offset++;
        out.add(MemoryRecords.withSnapshotHeaderRecord(offset, T0 + offset, 4,
            ByteBuffer.allocate(256),
            new SnapshotHeaderRecord().setLastContainedLogTimestamp(T0 - 5)));
        offset++;
        out.add(MemoryRecords.withKRaftVersionRecord(offset, T0 + offset, 4,
            ByteBuffer.allocate(256), new KRaftVersionRecord().setKRaftVersion((short) 1)));
        offset++;
        VotersRecord.Endpoint endpoint = new VotersRecord.Endpoint()
            .setName("CONTROLLER").setHost("localhost").setPort(9093);
        VotersRecord.EndpointCollection endpoints = new VotersRecord.EndpointCollection();
        endpoints.add(endpoint);
        out.add(MemoryRecords.withVotersRecord(offset, T0 + offset, 4, ByteBuffer.allocate(512),
            new VotersRecord().setVoters(List.of(new VotersRecord.Voter()
                .setVoterId(1)
                .setVoterDirectoryId(new Uuid(1, 100))
                .setEndpoints(endpoints)
                .setKRaftVersionFeature(new VotersRecord.KRaftVersionFeature()
                    .setMinSupportedVersion((short) 0)
                    .setMaxSupportedVersion((short) 1))))));
        offset++;
        out.add(MemoryRecords.withSnapshotFooterRecord(offset, T0 + offset, 4,
            ByteBuffer.allocate(256), new SnapshotFooterRecord()));
        offset++;
        out.add(marker(offset++, 9001L, 0, 4, 10, ControlRecordType.COMMIT));
        out.add(marker(offset, 9001L, 0, 4, 11, ControlRecordType.ABORT));
        return out;
    }

    /** Version 1 of the message has directory ids as well; Kafka 4.3.1 writes version 0. */
    private static LeaderChangeMessage.Voter voter(int id) {
        return new LeaderChangeMessage.Voter().setVoterId(id);
    }

    /** A batch with a delete horizon, as the builder writes it and as the cleaner does. */
    private static List<MemoryRecords> deleteHorizon() {
        List<MemoryRecords> out = new ArrayList<>();
        MemoryRecordsBuilder builder = new MemoryRecordsBuilder(new ByteBufferOutputStream(1024),
            V2, Compression.NONE, CREATE, 0L, RecordBatch.NO_TIMESTAMP, RecordBatch.NO_PRODUCER_ID,
            RecordBatch.NO_PRODUCER_EPOCH, RecordBatch.NO_SEQUENCE, false, false, 3, 1024,
            T0 + 86_400_000L);
        builder.append(record(T0 + 7, utf8("kept"), utf8("value")));
        builder.append(record(T0 + 5, utf8("deleted"), null));
        out.add(builder.build());
        out.add(clean(batch(V2, CompressionType.LZ4, 2, 3, List.of(
            record(T0 + 20, utf8("drop"), utf8("overwritten later")),
            record(T0 + 21, utf8("deleted-2"), null),
            record(T0 + 22, utf8("kept-2"), utf8("value"))))));
        return out;
    }

    /** What the log cleaner leaves: holes inside batches, and batches that are empty. */
    private static List<MemoryRecords> compacted(byte magic) {
        List<MemoryRecords> out = new ArrayList<>();
        long offset = 0;
        for (CompressionType codec : List.of(CompressionType.NONE, CompressionType.GZIP)) {
            out.add(clean(batch(magic, codec, offset, 1, List.of(
                record(T0 + 1, utf8("drop"), utf8("first in its batch")),
                record(T0 + 2, utf8("x"), utf8("stays")),
                record(T0 + 3, utf8("drop"), utf8("in the middle")),
                record(T0 + 4, utf8("drop"), utf8("in the middle, too")),
                record(T0 + 9, utf8("y"), utf8("stays, with the largest time")),
                record(T0 + 5, utf8("drop"), utf8("last in its batch"))))));
            offset += 6;
        }
        if (magic == V2) {
            // The last batch of an idempotent producer is kept for its sequence numbers, empty.
            out.add(clean(MemoryRecords.withIdempotentRecords(V2, offset, Compression.NONE, 4001L,
                (short) 1, 10, 1,
                record(T0 + 30, utf8("drop"), utf8("all")),
                record(T0 + 31, utf8("drop"), utf8("gone")))));
            offset += 2;
        }
        out.add(batch(magic, CompressionType.NONE, offset, 1,
            List.of(record(T0 + 40, utf8("drop"), utf8("the latest value of its key")))));
        return out;
    }

    /**
     * Compressed message sets with records missing, as cleaners left them before Kafka 0.11. That
     * of 4.3.1 would write magic 2 instead, so the builder is told the offsets.
     */
    private static List<MemoryRecords> holes(byte magic, long base) {
        List<MemoryRecords> out = new ArrayList<>();
        long offset = base;
        for (CompressionType codec : List.of(CompressionType.GZIP, CompressionType.LZ4)) {
            MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), magic,
                Compression.of(codec).build(), CREATE, offset, RecordBatch.NO_TIMESTAMP);
            builder.appendWithOffset(offset + 1, record(T0 + 1, utf8("x"), utf8("second of six")));
            builder.appendWithOffset(offset + 4, record(T0 + 4, utf8("y"), utf8("fifth of six")));
            builder.appendWithOffset(offset + 5, record(T0 + 3, utf8("z"), utf8("the last")));
            out.add(builder.build());
            offset += 6;
        }
        return out;
    }

    /** Kafka's own filter of the cleaner: it drops the records whose key is "drop". */
    private static MemoryRecords clean(MemoryRecords records) {
        ByteBuffer filtered = ByteBuffer.allocate(4096);
        records.filterTo(new MemoryRecords.RecordFilter(T0 + 1_000_000L, 86_400_000L) {
            @Override
            protected BatchRetentionResult checkBatchRetention(RecordBatch batch) {
                return new BatchRetentionResult(batch.hasProducerId()
                    ? BatchRetention.RETAIN_EMPTY : BatchRetention.DELETE_EMPTY, false);
            }

            @Override
            protected boolean shouldRetainRecord(RecordBatch batch, Record record) {
                byte[] key = new byte[record.keySize()];
                record.key().duplicate().get(key);
                return !new String(key, StandardCharsets.UTF_8).equals("drop");
            }
        }, filtered, BufferSupplier.create());
        filtered.flip();
        return MemoryRecords.readableRecords(filtered);
    }

    /** The log of a topic that lived through every format, past the range of a 32-bit offset. */
    private static List<MemoryRecords> mixed(long base) {
        List<SimpleRecord> two = List.of(record(T0 + 1, utf8("a"), utf8("1")),
            record(T0 + 2, utf8("b"), utf8("2")));
        List<MemoryRecords> out = new ArrayList<>();
        out.add(batch(V0, CompressionType.NONE, base, 0, two));
        out.add(batch(V0, CompressionType.GZIP, base + 2, 0, two));
        out.add(batch(V1, CompressionType.SNAPPY, base + 4, 0, two));
        out.add(batch(V1, CompressionType.NONE, base + 6, 0, two));
        out.add(batch(V2, CompressionType.ZSTD, base + 8, 1, two));
        out.add(batch(V2, CompressionType.NONE, base + 10, 2, two));
        // The largest offset that this segment can hold: an index stores it relative to the base.
        out.add(batch(V2, CompressionType.LZ4, base + Integer.MAX_VALUE - 1, 2, two));
        return out;
    }

    /** Which offset the time index names: the largest time first, in the middle, last, twice. */
    private static List<MemoryRecords> timestamps() {
        long none = RecordBatch.NO_TIMESTAMP - T0;
        long[][] times = {
            {5, 1, 2}, {3, 4, 2}, {10, 30, 20}, {30, 30, 30}, {40, 50, 50}, {1, 1, 1},
            {60, 50, 40}, {none, none, none}, {-T0, -T0 + 1, 61},
        };
        List<MemoryRecords> out = new ArrayList<>();
        long offset = 0;
        for (long[] each : times) {
            List<SimpleRecord> records = new ArrayList<>();
            for (long time : each) {
                records.add(record(T0 + time, utf8("k"), new byte[100]));
            }
            out.add(batch(V2, CompressionType.NONE, offset, 0, records));
            offset += each.length;
        }
        return out;
    }

    // ---- the partition with its side files -------------------------------------------------

    /** The transactions' segment once more, with every file that a broker keeps beside a log. */
    static void writePartition(File root) throws IOException {
        long base = 50;
        File dir = new File(root, "partition-0");
        Files.createDirectories(dir.toPath());
        try (LogSegment segment = Oracle.open(dir, base, INDEX_INTERVAL_BYTES)) {
            for (MemoryRecords each : transactions(base)) {
                Oracle.appendEach(segment, each);
            }
        }
        Oracle.recover(dir, base, INDEX_INTERVAL_BYTES);
        PartitionMetadataFile metadata = new PartitionMetadataFile(
            PartitionMetadataFile.newFile(dir), new LogDirFailureChannel(1));
        metadata.record(new Uuid(0x0123456789abcdefL, 0x0fedcba987654321L));
        metadata.maybeFlush();
        writeSidecar(dir, base);
        // The state of a log that no idempotent producer ever wrote to.
        File empty = new File(root, "snapshot-empty");
        Files.createDirectories(empty.toPath());
        ProducerStateManager.writeSnapshot(LogFileUtils.producerSnapshotFile(empty, 0),
            java.util.Map.of(), false);
    }

    // ---- small parts -----------------------------------------------------------------------

    private static MemoryRecords batch(byte magic, CompressionType codec, long baseOffset,
                                       int leaderEpoch, List<SimpleRecord> records) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(4096), magic,
            Compression.of(codec).build(), CREATE, baseOffset, RecordBatch.NO_TIMESTAMP,
            magic == V2 ? leaderEpoch : RecordBatch.NO_PARTITION_LEADER_EPOCH);
        for (SimpleRecord each : records) {
            builder.append(each);
        }
        return builder.build();
    }

    private static SimpleRecord record(long timestamp, byte[] key, byte[] value,
                                       Header... headers) {
        return new SimpleRecord(timestamp, key, value, headers);
    }

    private static Header header(String key, byte[] value) {
        return new RecordHeader(key, value);
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
