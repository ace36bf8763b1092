/* The native dialect: entropy
 *
 * The hash and key derivation against their standards' own examples; then random bytes from a pool
 * of which the command line gives the guest's own secret ("secret=NUMBER").  "=OUTPUT n word" lines
 * show them to whoever compares runs: of a hostile host, of one snapshot restored twice. */
#include "bench/marks.h"
#include "lib/test.h"
#include "pv/entropy.h"
#include "pv/hkdf.h"

const char test_title[] = "The native dialect: entropy";

static struct native_contract contract;

#define CODE(error) ((uint64_t)-(int64_t)NATIVE_E_##error)

static bool is(const uint8_t *found, const char *hex, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], 0}, *at = digits;
        unsigned value = 0;

        for (; *at; at++)
            value = value * 16 + (unsigned)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
        if (found[i] != value)
            return false;
    }
    return true;
}

/* FIPS 180-4's examples (NIST, "SHA256.pdf"), RFC 4231's case 2, RFC 5869's cases 1 and 3. */
static void check_standards(void)
{
    static const uint8_t salt[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const uint8_t info[] = {0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9};
    static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    uint8_t hash[HASH_BYTES], out[42], material[22];

    sha256(hash, "abc", 3);
    report(is(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 32), "SHA-256 of abc");
    sha256(hash, "", 0);
    report(is(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 32), "SHA-256 of nothing");
    sha256(hash, two_blocks, 56);
    report(is(hash, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", 32), "SHA-256 of two blocks");
    hmac_sha256(hash, "Jefe", 4, "what do ya want for nothing?", 28);
    report(is(hash, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", 32), "HMAC, RFC 4231");
    memset(material, 0x0b, sizeof material);
    hkdf_extract(hash, salt, sizeof salt, material, sizeof material);
    report(is(hash, "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5", 32), "HKDF-Extract, RFC 5869");
    hkdf_expand(out, sizeof out, hash, info, sizeof info);
    report(is(out, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865", 42),
           "HKDF-Expand, RFC 5869");
    hkdf_extract(hash, "", 0, material, sizeof material);
    hkdf_expand(out, sizeof out, hash, "", 0);
    report(is(out, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8", 42),
           "HKDF without salt and info");
}

static void show(uint64_t number)
{
    uint64_t words[4];

    entropy_get(words, sizeof words);
    for (int i = 0; i < 4; i++)
        mark_figure("OUTPUT", number * 4 + (uint64_t)i, words[i]);
}

void test_main(void)
{
    static uint8_t fresh[64] __attribute__((aligned(8)));
    uint64_t wanted = 1ul << NATIVE_FEATURE_ENTROPY;
    const char *word = find_word(boot_info.cmdline, "secret=");
    uint64_t secret = word ? parse_number(word) : 0;

    check_standards();
    if (!native_find() || native_use(wanted) != wanted)
        report_abort("no entropy");
    native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(contract));
    expect_equal((uint64_t)native_entropy(0x7ffffff000), CODE(BAD_ADDRESS), "entropy nowhere");
    expect_equal((uint64_t)native_entropy(PHYSICAL(fresh) + 1), CODE(MISALIGNED), "entropy askew");
    expect_equal((uint64_t)native_entropy(PHYSICAL(fresh)), 0, "the host contributes");
    expect_equal((uint64_t)native_entropy(PHYSICAL(fresh[32])), 0, "and again");
    if (!find_word(boot_info.cmdline, "hostile"))
        report(memcmp(fresh, fresh + 32, 32), "something else");
    entropy_init(&contract, &secret, sizeof secret);
    show(0);
    native_call(NATIVE_CALL_NOP, 7, 0, 0, 0, 0, 0);      /* where a snapshot may be taken */
    show(1);
    show(2);
}
