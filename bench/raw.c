/*
 * raw: as load, for what libiscsi doesn't speak: digests over data. One connection, commands in sequence. It speaks
 * iSCSI itself (RFC 7143), computes and verifies CRC32C with the processor's instruction, and believes no header before.
 *
 *   gcc -O2 -msse4.2 -o raw raw.c
 *   raw --url iscsi://HOST:PORT/TARGET/LUN --operation read|write|fill|check [options of load]
 *
 *   --header-digest, --data-digest   CRC32C over headers, over data
 *   --bytes N, --depth N, --region N, --seconds S, --ops N, --seed N, --pid N   as load has them
 *
 * Exit codes as those of load. HOST is an IPv4 address; PDUs have no AHS.
 */
#define _GNU_SOURCE
#define PROGRAM "raw"
#include "common.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nmmintrin.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define BHS 48
#define DEPTH_MAX 256
#define BYTES_MAX 1048576
#define SEGMENT_MAX 262144
#define RECEIVE_BYTES (4 << 20)
#define TAG_NONE 0xffffffffu

static const char *url;
static enum operation operation = OP_READ;
static int header_digest, data_digest, depth = 1, target_pid, lun;
static uint32_t bytes = 262144;
static uint64_t region = 1 << 20, ops_max = UINT64_MAX;
static double seconds = 1e9;

/* One command under way; its place in the array is its task tag. */
struct slot {
    unsigned char *data;
    uint64_t piece, begun_ns;
    uint32_t received;
    int busy;
};

static int fd;
static struct slot slots[DEPTH_MAX];
static uint32_t cmd_sn, max_cmd_sn, exp_stat_sn;
static uint32_t send_segment = 8192, first_burst = 65536;
static int immediate = 1, initial_r2t = 1, running = 1;
static uint64_t issued, completed, failures, pieces, latencies_max = 4000000;
static float *latencies;

static void put32(unsigned char *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, 4);
}

static uint32_t get32(const unsigned char *at)
{
    uint32_t value;

    memcpy(&value, at, 4);
    return ntohl(value);
}

/* CRC32C as it stands on the wire: the register's bytes, lowest first (RFC 7143 §13.1). Lengths are multiples of 4. */
static uint32_t crc32c(const unsigned char *at, size_t length)
{
    uint64_t crc = 0xffffffffu;

    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        crc = _mm_crc32_u64(crc, word);
    }
    if (length >= 4) {
        uint32_t word;
        memcpy(&word, at, 4);
        crc = _mm_crc32_u32((uint32_t)crc, word);
    }
    return ~(uint32_t)crc;
}

/* ---- Contents that tell where they belong: the same as load's. */

static void stamp(struct slot *slot)
{
    uint64_t *words = (uint64_t *)slot->data, at = slot->piece * bytes;
    uint32_t i;

    for (i = 0; i < bytes / 8; i++) words[i] = word_at(at + i * 8);
}

static void check(const struct slot *slot)
{
    const uint64_t *words = (const uint64_t *)slot->data;
    uint64_t at = slot->piece * bytes;
    uint32_t i;

    for (i = 0; i < bytes / 8 && words[i] == word_at(at + i * 8); i++) {}
    if (i == bytes / 8) return;
    if (failures++ < 5) fprintf(stderr, "raw: other bytes than written at %llu\n", (unsigned long long)(at + i * 8));
}

/* ---- Sending. */

static void send_all(struct iovec *parts, int count)
{
    while (count > 0) {
        ssize_t sent = writev(fd, parts, count);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) fail("the connection broke: %s", strerror(errno));
        for (; count > 0 && (size_t)sent >= parts->iov_len; parts++, count--) sent -= (ssize_t)parts->iov_len;
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + sent;
            parts->iov_len -= (size_t)sent;
        }
    }
}

/* A PDU with its digests; `length` is a multiple of 4 but for login text, which is padded by its sender. */
static void send_pdu(unsigned char *header, const unsigned char *data, uint32_t length, int with_digests)
{
    uint32_t of_header, of_data;
    struct iovec parts[4];
    int count = 0;

    header[5] = (unsigned char)(length >> 16);
    header[6] = (unsigned char)(length >> 8);
    header[7] = (unsigned char)length;
    parts[count++] = (struct iovec){header, BHS};
    if (with_digests && header_digest) {
        of_header = crc32c(header, BHS);
        parts[count++] = (struct iovec){&of_header, 4};
    }
    if (length > 0) {
        parts[count++] = (struct iovec){(void *)(uintptr_t)data, (length + 3) & ~3u};
        if (with_digests && data_digest) {
            of_data = crc32c(data, length);
            parts[count++] = (struct iovec){&of_data, 4};
        }
    }
    send_all(parts, count);
}

/* Data-Out PDUs for [from, end) of the slot's data (§11.7). */
static void send_data(uint32_t itt, uint32_t ttt, uint32_t from, uint32_t end)
{
    unsigned char header[BHS] = {0x05};
    uint32_t data_sn = 0;

    header[9] = (unsigned char)lun;
    put32(header + 16, itt);
    put32(header + 20, ttt);
    while (from < end) {
        uint32_t length = end - from < send_segment ? end - from : send_segment;
        header[1] = from + length == end ? 0x80 : 0;
        put32(header + 28, exp_stat_sn);
        put32(header + 36, data_sn++);
        put32(header + 40, from);
        send_pdu(header, slots[itt].data + from, length, 1);
        from += length;
    }
}

static int is_writing(void) { return operation == OP_WRITE || operation == OP_FILL; }

static void issue(uint32_t itt)
{
    struct slot *slot = &slots[itt];
    unsigned char header[BHS] = {0x01};
    uint32_t now = 0, unsolicited = 0, block;

    slot->piece = issued++ % pieces;
    slot->received = 0;
    slot->busy = 1;
    if (operation == OP_FILL) stamp(slot);
    header[1] = is_writing() ? 0x20 : 0x40;
    if (is_writing()) {
        if (immediate) now = bytes < first_burst ? bytes : first_burst;
        if (now > send_segment) now = send_segment;
        unsolicited = initial_r2t ? now : bytes < first_burst ? bytes : first_burst;
        if (unsolicited < now) unsolicited = now;
    }
    if (unsolicited == now) header[1] |= 0x80;
    header[9] = (unsigned char)lun;
    put32(header + 16, itt);
    put32(header + 20, bytes);
    put32(header + 24, cmd_sn++);
    put32(header + 28, exp_stat_sn);
    header[32] = is_writing() ? 0x2a : 0x28;
    block = (uint32_t)(slot->piece * (bytes / SECTOR));
    put32(header + 34, block);
    header[39] = (unsigned char)((bytes / SECTOR) >> 8);
    header[40] = (unsigned char)(bytes / SECTOR);
    slot->begun_ns = now_ns();
    send_pdu(header, slot->data, now, 1);
    if (unsolicited > now) send_data(itt, TAG_NONE, now, unsolicited);
}

static void issue_all(void)
{
    int itt;

    for (itt = 0; itt < depth && running; itt++)
        if (!slots[itt].busy && issued < ops_max && (int32_t)(max_cmd_sn - cmd_sn) >= 0) issue((uint32_t)itt);
}

static void ended(uint32_t itt, unsigned status)
{
    struct slot *slot = &slots[itt];

    if (completed < latencies_max) latencies[completed] = (float)(now_ns() - slot->begun_ns);
    completed++;
    slot->busy = 0;
    if (status != 0) {
        if (failures++ < 5) fprintf(stderr, "raw: status %u\n", status);
    } else if (!is_writing() && slot->received != bytes) {
        if (failures++ < 5) fprintf(stderr, "raw: %u bytes\n", slot->received);
    } else if (operation == OP_CHECK) {
        check(slot);
    }
}

/* ---- Receiving. */

static unsigned char received[RECEIVE_BYTES];
static size_t have;

static void receive_more(void)
{
    ssize_t count = recv(fd, received + have, sizeof received - have, 0);

    if (count < 0 && errno == EINTR) return;
    if (count <= 0) fail("the connection broke: %s", count == 0 ? "closed" : strerror(errno));
    have += (size_t)count;
}

/* The length of the whole PDU at `at`, 0 while it is not all here. */
static size_t pdu_length(size_t at, int with_digests)
{
    size_t length, data;

    if (have - at < BHS) return 0;
    data = (size_t)(get32(received + at + 4) & 0xffffff);
    if (received[at + 4] != 0 || data > SEGMENT_MAX) fail("a PDU of odd form");
    length = BHS + ((data + 3) & ~(size_t)3);
    if (with_digests && header_digest) length += 4;
    if (with_digests && data_digest && data > 0) length += 4;
    return have - at < length ? 0 : length;
}

static void verify(const unsigned char *at, size_t length, const unsigned char *digest, const char *what)
{
    uint32_t crc = crc32c(at, length);

    if (memcmp(&crc, digest, 4) != 0) fail("a %s digest is wrong", what);
}

static void sequence_numbers(const unsigned char *header, int counts)
{
    uint32_t max = get32(header + 32);

    if (counts) exp_stat_sn = get32(header + 24) + 1;
    if ((int32_t)(max - max_cmd_sn) > 0) max_cmd_sn = max;
}

static void handle(const unsigned char *header, const unsigned char *data, uint32_t length)
{
    uint32_t itt = get32(header + 16);
    unsigned opcode = header[0] & 0x3f;

    if (opcode == 0x20) { /* NOP-In: nobody asks while commands flow, but if, it is answered (§11.18) */
        unsigned char answer[BHS] = {0x40, 0x80};
        sequence_numbers(header, itt != TAG_NONE);
        if (get32(header + 20) == TAG_NONE) return;
        memset(answer + 16, 0xff, 4);
        memcpy(answer + 20, header + 20, 4);
        put32(answer + 24, cmd_sn);
        put32(answer + 28, exp_stat_sn);
        send_pdu(answer, NULL, 0, 1);
        return;
    }
    if (opcode == 0x32) { /* Asynchronous message */
        sequence_numbers(header, 1);
        return;
    }
    if (itt >= (uint32_t)depth || !slots[itt].busy) fail("PDU %02x for no command", opcode);
    if (opcode == 0x25) { /* Data-In */
        uint32_t at = get32(header + 40);
        if (at + length > bytes || at != slots[itt].received) fail("Data-In out of order");
        memcpy(slots[itt].data + at, data, length);
        slots[itt].received += length;
        sequence_numbers(header, header[1] & 1);
        if (header[1] & 1) ended(itt, header[3]);
    } else if (opcode == 0x31) { /* R2T */
        uint32_t at = get32(header + 40), end = at + get32(header + 44);
        if (end > bytes || end <= at) fail("an R2T out of range");
        sequence_numbers(header, 0);
        send_data(itt, get32(header + 20), at, end);
    } else if (opcode == 0x21) { /* SCSI Response */
        sequence_numbers(header, 1);
        ended(itt, header[2] != 0 ? 256u : header[3]);
    } else {
        fail("PDU %02x", opcode);
    }
}

/* Handles every PDU that is here. */
static void handle_received(void)
{
    size_t at = 0, length;

    while ((length = pdu_length(at, 1)) > 0) {
        unsigned char *header = received + at, *data = header + BHS + (header_digest ? 4 : 0);
        uint32_t data_length = get32(header + 4) & 0xffffff;
        if (header_digest) verify(header, BHS, header + BHS, "header");
        if (data_digest && data_length > 0)
            verify(data, (data_length + 3) & ~3u, data + ((data_length + 3) & ~3u), "data");
        handle(header, data, data_length);
        at += length;
    }
    memmove(received, received + at, have - at);
    have -= at;
}

/* ---- Login (§6): one stage, no authentication. */

static void answer_key(const char *key, const char *value)
{
    int number = atoi(value);

    if (strcmp(key, "MaxRecvDataSegmentLength") == 0) send_segment = (uint32_t)number;
    else if (strcmp(key, "FirstBurstLength") == 0) first_burst = (uint32_t)number;
    else if (strcmp(key, "ImmediateData") == 0) immediate = strcmp(value, "Yes") == 0;
    else if (strcmp(key, "InitialR2T") == 0) initial_r2t = strcmp(value, "Yes") == 0;
    else if (strcmp(key, "HeaderDigest") == 0 && header_digest && strcmp(value, "CRC32C") != 0)
        fail("the target has no header digest");
    else if (strcmp(key, "DataDigest") == 0 && data_digest && strcmp(value, "CRC32C") != 0)
        fail("the target has no data digest");
}

static void login(const char *target)
{
    char text[1024];
    unsigned char header[BHS] = {0x43, 0x87};
    int length, round, i;

    length = snprintf(text, sizeof text,
        "InitiatorName=iqn.2026-01.org.example:raw:%d%cTargetName=%s%cSessionType=Normal%cHeaderDigest=%s%cDataDigest=%s%c"
        "MaxRecvDataSegmentLength=%d%cFirstBurstLength=262144%cMaxBurstLength=1048576%cInitialR2T=No%cImmediateData=Yes%c"
        "MaxOutstandingR2T=1%cErrorRecoveryLevel=0%cMaxConnections=1%cDataPDUInOrder=Yes%cDataSequenceInOrder=Yes%c",
        (int)getpid(), 0, target, 0, 0, header_digest ? "CRC32C" : "None", 0, data_digest ? "CRC32C" : "None", 0,
        SEGMENT_MAX, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    if (length < 0 || (size_t)length + 4 > sizeof text) fail("a long target name");
    memset(text + length, 0, 4);
    header[8] = 0x80; /* ISID: random format */
    put32(header + 9, (uint32_t)getpid());
    for (round = 0; round < 8; round++) {
        size_t whole;
        put32(header + 24, cmd_sn);
        put32(header + 28, exp_stat_sn);
        send_pdu(header, (unsigned char *)text, round == 0 ? (uint32_t)length : 0, 0);
        while ((whole = pdu_length(0, 0)) == 0) receive_more();
        if ((received[0] & 0x3f) != 0x23 || received[36] != 0)
            fail("login: status %02x%02x", received[36], received[37]);
        exp_stat_sn = get32(received + 24) + 1;
        max_cmd_sn = get32(received + 32);
        cmd_sn = get32(received + 28);
        {
            char *at = (char *)received + BHS, *end = at + (get32(received + 4) & 0xffffff);
            for (; at < end; at += strlen(at) + 1) {
                char *equals = strchr(at, '=');
                if (equals == NULL) continue;
                *equals = 0;
                answer_key(at, equals + 1);
                *equals = '=';
            }
        }
        i = received[1];
        memmove(received, received + whole, have - whole);
        have -= whole;
        if ((i & 0x83) == 0x83) return;
    }
    fail("the login does not end");
}

static void connect_target(void)
{
    struct sockaddr_in place = {.sin_family = AF_INET};
    char host[64], target[256];
    int port, yes = 1;

    if (sscanf(url, "iscsi://%63[^:]:%d/%255[^/]/%d", host, &port, target, &lun) != 4) fail("%s: not understood", url);
    place.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, host, &place.sin_addr) != 1) fail("%s is no IPv4 address", host);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&place, sizeof place) != 0) fail("%s: %s", url, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    login(target);
}

/* The unit attention of a new nexus is taken by a TEST UNIT READY. */
static void clear_attention(void)
{
    int round;

    for (round = 0; round < 3; round++) {
        unsigned char header[BHS] = {0x01, 0x80};
        size_t length;
        int status;
        header[9] = (unsigned char)lun;
        put32(header + 24, cmd_sn++);
        put32(header + 28, exp_stat_sn);
        send_pdu(header, NULL, 0, 1);
        while ((length = pdu_length(0, 1)) == 0) receive_more();
        if ((received[0] & 0x3f) != 0x21) fail("PDU %02x instead of a response", received[0]);
        sequence_numbers(received, 1);
        status = received[3];
        memmove(received, received + length, have - length);
        have -= length;
        if (status == 0) return;
    }
    fail("the LUN is not ready");
}

/* ---- The run. */

static int by_value(const void *one, const void *other)
{
    float a = *(const float *)one, b = *(const float *)other;

    return (a > b) - (a < b);
}

static double quantile_us(double share)
{
    uint64_t count = completed < latencies_max ? completed : latencies_max;
    uint64_t index = (uint64_t)(share * (double)count);

    if (count == 0) return 0;
    return latencies[index < count ? index : count - 1] / 1000.0;
}

static void parse(int count, char **arguments)
{
    static const struct option options[] = {
        {"url", 1, 0, 'u'}, {"operation", 1, 0, 'o'}, {"bytes", 1, 0, 'b'}, {"depth", 1, 0, 'd'},
        {"region", 1, 0, 'g'}, {"seconds", 1, 0, 's'}, {"ops", 1, 0, 'n'}, {"seed", 1, 0, 'e'},
        {"header-digest", 0, 0, 'h'}, {"data-digest", 0, 0, 'D'}, {"pid", 1, 0, 'p'}, {0, 0, 0, 0}};
    static const char *const operations[] = {"read", "write", "fill", "check"};
    int option, i;

    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1) {
        switch (option) {
        case 'u': url = optarg; break;
        case 'o':
            for (i = 0; i < 4 && strcmp(optarg, operations[i]) != 0; i++) {}
            if (i == 4) fail("--operation: %s?", optarg);
            operation = (enum operation)i;
            break;
        case 'b': bytes = (uint32_t)number(optarg); break;
        case 'd': depth = (int)number(optarg); break;
        case 'g': region = number(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'n': ops_max = number(optarg); break;
        case 'e': seed = number(optarg); break;
        case 'h': header_digest = 1; break;
        case 'D': data_digest = 1; break;
        case 'p': target_pid = (int)number(optarg); break;
        default: exit(1);
        }
    }
    if (url == NULL) fail("--url is missing");
    if (bytes == 0 || bytes % SECTOR != 0 || bytes > BYTES_MAX) fail("--bytes is a multiple of %d up to %d", SECTOR, BYTES_MAX);
    if (depth < 1 || depth > DEPTH_MAX) fail("--depth is out of range");
    pieces = region / bytes;
    if (pieces == 0) fail("the region is smaller than a command");
}

int main(int count, char **arguments)
{
    uint64_t begun, end_ns = 0, in_time = 0;
    double target_before, target_cpu = 0, own_before, own_cpu = 0, elapsed;
    int i;

    parse(count, arguments);
    latencies = malloc(latencies_max * sizeof *latencies);
    if (latencies == NULL) fail("no memory");
    connect_target();
    clear_attention();
    for (i = 0; i < depth; i++) {
        if (posix_memalign((void **)&slots[i].data, 4096, bytes) != 0) fail("no memory");
        memset(slots[i].data, 0x5a + i, bytes);
    }
    target_before = processor_seconds(target_pid);
    own_before = own_seconds();
    begun = now_ns();
    issue_all();
    for (;;) {
        int busy = 0;
        for (i = 0; i < depth; i++) busy |= slots[i].busy;
        /* Never before something has completed: on a busy machine a short run would have no rate. */
        if (running && (!busy || (completed > 0 && (double)(now_ns() - begun) / 1e9 >= seconds))) {
            running = 0;
            end_ns = now_ns();
            in_time = completed;
            target_cpu = processor_seconds(target_pid) - target_before;
            own_cpu = own_seconds() - own_before;
        }
        if (!busy) break;
        receive_more();
        handle_received();
        issue_all();
    }
    close(fd);

    elapsed = (double)(end_ns - begun) / 1e9;
    qsort(latencies, completed < latencies_max ? completed : latencies_max, sizeof *latencies, by_value);
    printf("{\"ops\":%llu,\"seconds\":%.4f,\"opsPerSecond\":%.1f,\"bytesPerSecond\":%.0f,\"p50Us\":%.1f,\"p99Us\":%.1f,"
           "\"maxUs\":%.1f,\"targetCpuUs\":%.3f,\"targetCpuShare\":%.3f,\"clientCpuShare\":%.3f,\"failures\":%llu}\n",
           (unsigned long long)in_time, elapsed, (double)in_time / elapsed, (double)in_time * bytes / elapsed,
           quantile_us(0.5), quantile_us(0.99), quantile_us(1), in_time ? target_cpu * 1e6 / (double)in_time : 0,
           target_cpu / elapsed, own_cpu / elapsed, (unsigned long long)failures);
    return failures ? 2 : 0;
}
