"""libslirp, opened when `--net user` is asked for: its C interface, and nothing else.

The declarations are those of <slirp/libslirp.h> 4.7 (Debian's libslirp-dev), configuration version
4: later versions only append to both records, and read as far as the version says.
"""

from functools import cache
from typing import Any, Final

from cffi import FFI

from vmm.errors import UsageError

SONAME: Final = "libslirp.so.0"
OLDEST: Final = (4, 7)  # the first with configuration version 4
CONFIG_VERSION: Final = 4
POLL_IN, POLL_OUT, POLL_PRI, POLL_ERR, POLL_HUP = 1, 2, 4, 8, 16

ffi: Final[Any] = FFI()
ffi.cdef("""
typedef struct Slirp Slirp;
struct in_addr { uint32_t s_addr; };
struct in6_addr { uint8_t s6_addr[16]; };
typedef ssize_t (*SlirpWriteCb)(const void *buf, size_t len, void *opaque);
typedef struct SlirpCb {
    SlirpWriteCb send_packet;
    void (*guest_error)(const char *msg, void *opaque);
    int64_t (*clock_get_ns)(void *opaque);
    void *timer_new;
    void (*timer_free)(void *timer, void *opaque);
    void (*timer_mod)(void *timer, int64_t expire_time, void *opaque);
    void (*register_poll_fd)(int fd, void *opaque);
    void (*unregister_poll_fd)(int fd, void *opaque);
    void (*notify)(void *opaque);
    void *init_completed;
    void *(*timer_new_opaque)(int id, void *cb_opaque, void *opaque);
} SlirpCb;
typedef struct SlirpConfig {
    uint32_t version;
    int restricted;
    bool in_enabled;
    struct in_addr vnetwork, vnetmask, vhost;
    bool in6_enabled;
    struct in6_addr vprefix_addr6;
    uint8_t vprefix_len;
    struct in6_addr vhost6;
    const char *vhostname, *tftp_server_name, *tftp_path, *bootfile;
    struct in_addr vdhcp_start, vnameserver;
    struct in6_addr vnameserver6;
    const char **vdnssearch;
    const char *vdomainname;
    size_t if_mtu, if_mru;
    bool disable_host_loopback, enable_emu;
    void *outbound_addr, *outbound_addr6;
    bool disable_dns;
    bool disable_dhcp;
    uint8_t room_of_later_versions[256];
} SlirpConfig;
Slirp *slirp_new(const SlirpConfig *cfg, const SlirpCb *callbacks, void *opaque);
void slirp_cleanup(Slirp *slirp);
void slirp_pollfds_fill(Slirp *slirp, uint32_t *timeout,
                        int (*add_poll)(int fd, int events, void *opaque), void *opaque);
void slirp_pollfds_poll(Slirp *slirp, int select_error,
                        int (*get_revents)(int idx, void *opaque), void *opaque);
void slirp_input(Slirp *slirp, const uint8_t *pkt, int pkt_len);
int slirp_add_hostfwd(Slirp *slirp, int is_udp, struct in_addr host_addr, int host_port,
                      struct in_addr guest_addr, int guest_port);
const char *slirp_version_string(void);
""")


@cache
def library() -> Any:
    """Open libslirp. Raises UsageError where it is missing or too old, naming the package."""
    try:
        lib = ffi.dlopen(SONAME)
    except OSError:
        raise UsageError(
            f"--net user needs {SONAME}, which is not here; "
            "install it with: sudo apt-get install libslirp0"
        ) from None
    version = ffi.string(lib.slirp_version_string()).decode()
    if _numbers(version) < OLDEST:
        raise UsageError(
            f"--net user needs libslirp {OLDEST[0]}.{OLDEST[1]} or newer, this is {version}; "
            "install a newer libslirp0, or use --net socket"
        )
    return lib


def _numbers(version: str) -> tuple[int, ...]:
    """Return 4.7.0-git as (4, 7, 0)."""
    return tuple(int(word) for word in version.split("-")[0].split(".") if word.isdigit())
