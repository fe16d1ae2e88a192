// A C++ program against the installed library: every header, calls of each group. Reads what main.c left in the same directory.
#include <cheetah/backup.h>
#include <cheetah/lm.h>
#include <cheetah/reduce.h>
#include <cheetah/scan.h>
#include <cheetah/store.h>
#include <cheetah/sweep.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace
{

void check(cht_rc rc, const cht_err &err)
{
    if (rc != CHT_OK)
        throw std::runtime_error(std::string(cht_rc_slug(rc)) + ": " + err.msg);
}

cht_str view(const std::string &s) { return {reinterpret_cast<const uint8_t *>(s.data()), s.size()}; }

void look(const char *dir)
{
    cht_err err{};
    cht_env_config config{};
    config.dirs = &dir;
    config.dir_count = 1;
    cht_env *opened = nullptr;
    check(cht_env_open(&config, &opened, &err), err);
    const std::unique_ptr<cht_env, void (*)(cht_env *)> env(
        opened, [](cht_env *e) { (void)cht_env_close(e, nullptr); });
    cht_store *store = nullptr;
    check(cht_env_get(env.get(), "default", &store, &err), err);

    const std::string prefix = "greeting:";
    cht_scan_config scanning{};
    scanning.prefix = view(prefix);
    cht_scan *scan = nullptr;
    check(cht_scan_open(store, &scanning, &scan, &err), err);
    std::vector<cht_entry> entries(16);
    for (std::size_t n = 1; n > 0;) {
        check(cht_scan_next(scan, entries.data(), entries.size(), &n, &err), err);
        for (std::size_t i = 0; i < n; i++)
            std::printf("scanned %.*s\n", static_cast<int>(entries[i].name_len),
                        reinterpret_cast<const char *>(entries[i].name));
    }
    cht_scan_close(scan);

    cht_lm *made = nullptr;
    check(cht_lm_new(&made, &err), err);
    const std::unique_ptr<cht_lm, void (*)(cht_lm *)> lm(made, cht_lm_free);
    const std::vector<uint32_t> tokens{2, 11};
    std::vector<cht_lm_candidate> best(3);
    std::size_t count = 0;
    check(cht_lm_predict(lm.get(), store, tokens.data(), tokens.size(), 3, best.data(), &count, &err), err);
    std::printf("next %u\n", count > 0 ? best[0].token : 0U);

    cht_reduced reduced{};
    const std::string counts = "cnt:3:";
    cht_reduce_config reducing{};
    reducing.prefix = view(counts);
    check(cht_reduce(store, "counts-of-counts", &reducing, &reduced, &err), err);
    std::printf("lines %d\n", static_cast<int>(reduced.count));
    cht_buf_free(&reduced.lines);
}

} // namespace

int main(int argc, char **argv)
{
    try {
        look(argc > 1 ? argv[1] : "");
    } catch (const std::exception &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
