"""The page at `/` in headless Chromium, against a real server with the tiny model and two adapters.

    python chameleon-cli/tests/serve/python/page.py target/debug/chameleon [--pictures FOLDER] [NAME ..]

Needs the package `playwright` and a Chromium (`--chromium PATH`, or one on the PATH); without them it says so and
ends well, unless `--strict` is given. Each function below named `.._page` is one test; NAMEs choose among them.
"""

import argparse
import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None

MODEL = pathlib.Path(__file__).parents[2] / "fixtures" / "tiny-llama"
PROSE = "The lizard hurried by the old wall until the beetle wandered too."
CODE = "fn offset_total(offset: u32, total: u32) -> u32 {"
KEY = "a key for this test"
# One of these answers takes seconds under a slowed network and no time without.
SLOW_BYTES_PER_SECOND = 4000


class Server:
    """A running `chameleon serve`; ends with the `with` block."""

    def __init__(self, program, adapters, *flags, port=0):
        named = [part for name, path in adapters.items() for part in ("--adapter", f"{name}={path}")]
        command = [program, "serve", "--model", MODEL, "--listen", f"127.0.0.1:{port}", *named, *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"the server did not start: {line!r}"
        self.address = found.group()
        self.port = int(self.address.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def get(self, path, **headers):
        request = urllib.request.Request(self.address + path, headers=headers)
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def clusters(self, adapter):
        _, _, body = self.get(f"/v1/clusters?adapter={adapter}")
        return json.loads(body)["data"][0]["clusters"]


class Window:
    """A tab, what it complained of, and where it asked."""

    def __init__(self, browser, server, size=(1400, 900), scheme="light"):
        self.server = server
        self.complaints = []
        self.asked = []
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, locale="en-GB")
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self.heard)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(server.address)

    def heard(self, message):
        # The browser itself tells of every status that is not a success.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            assert not self.complaints, self.complaints
            strangers = [url for url in self.asked if not url.startswith(self.server.address + "/")]
            assert not strangers, f"asked elsewhere: {strangers}"
        self.context.close()

    def find(self, selector):
        return self.page.locator(selector)

    def is_ready(self):
        expect(self.find("#health-text")).to_have_text("Ready")

    def slow_down(self):
        network = self.context.new_cdp_session(self.page)
        network.send("Network.enable")
        conditions = {"offline": False, "latency": 0, "uploadThroughput": -1}
        network.send(
            "Network.emulateNetworkConditions",
            {**conditions, "downloadThroughput": SLOW_BYTES_PER_SECOND},
        )

    def set(self, **settings):
        if self.find("#settings").is_hidden():
            self.find("#settings-toggle").click()
        for name, value in settings.items():
            self.find(f"#{name.replace('_', '-')}").fill(str(value))

    def begin(self, text):
        self.is_ready()
        self.find("#prompt").fill(text)
        self.find("#prompt").press("Enter")

    def ask(self, text):
        """Sends a message and waits for both answers."""
        self.begin(text)
        expect(self.find("#send")).to_be_visible(timeout=60_000)
        return self.find(".turn").last

    def requests_of(self, cluster):
        return int(self.find(f'tr[data-cluster="{cluster}"] td').first.inner_text())


def sends_and_streams_page(browser, server):
    with Window(browser, server) as window:
        window.is_ready()
        window.set(max_tokens=60)
        window.slow_down()
        window.begin(PROSE)
        turn = window.find(".turn").last
        texts = [turn.locator(".base .text"), turn.locator(".adapted .text")]
        for text in texts:
            expect(text).not_to_have_text("", timeout=20_000)
        before = [text.inner_text() for text in texts]
        expect(window.find("#stop")).to_be_visible()
        expect(window.find("#conversation")).to_have_attribute("aria-busy", "true")
        expect(window.find("#send")).to_be_visible(timeout=120_000)
        after = [text.inner_text() for text in texts]
        for early, late in zip(before, after):
            assert len(late) > len(early), f"nothing was added to {early!r}"
        expect(turn.locator("h3").nth(1)).to_have_text("Base")
        expect(turn.locator(".base footer")).to_contain_text("tokens")
        expect(turn.locator(".base footer")).to_contain_text("per second")
        expect(window.find("#conversation")).to_have_attribute("aria-busy", "false")
        expect(window.find("#announcement")).to_have_text("Answered.")


def shows_the_group_page(browser, server):
    with Window(browser, server) as window:
        window.is_ready()
        expect(window.find("#group-rows tr")).to_have_count(3)
        seen = set()
        for text in (PROSE, CODE):
            before = {group["cluster"]: group["num_requests"] for group in server.clusters("mixed")}
            chip = window.ask(text).locator(".adapted .group")
            cluster = int(re.fullmatch(r"group (\d+)", chip.inner_text()).group(1))
            seen.add(cluster)
            expect(window.find("#factor-group")).to_have_text(f"{cluster}, among 3")
            expect(window.find("#factor-condition")).to_have_text("centroid")
            row = window.find(f'tr[data-cluster="{cluster}"]')
            expect(row.locator("td").first).to_have_text(str(before[cluster] + 1))
            expect(row).to_have_class("latest last")
            expect(window.find(".mark.last text")).to_have_text(str(cluster))
            norm = next(g["delta_norm"] for g in server.clusters("mixed") if g["cluster"] == cluster)
            told = float(window.find("#factor-norm span").first.inner_text())
            assert abs(told - norm) <= 0.01 * norm + 1e-3, (told, norm)
        assert len(seen) == 2, f"prose and code fell in {seen}"


def switches_the_adapter_page(browser, server):
    with Window(browser, server) as window:
        window.is_ready()
        turn = window.ask(PROSE)
        expect(turn.locator(".adapted h3")).to_have_text("mixed")
        window.find("#adapter").select_option(label="pair")
        expect(window.find("#group-rows tr")).to_have_count(2)
        turn = window.ask(PROSE)
        expect(turn.locator(".adapted h3")).to_have_text("pair")
        expect(window.find("#factor-adapter")).to_have_text("pair")
        window.find("#adapter").select_option(label="none")
        turn = window.ask(PROSE)
        expect(turn.locator(".answer")).to_have_count(1)
        expect(window.find("#groups")).to_be_hidden()


def starts_both_from_one_seed_page(browser, server):
    """Without strength the adapter changes nothing, and the same seed draws the same answer."""
    with Window(browser, server) as window:
        window.is_ready()
        window.set(scale=0, seed=7, temperature=1, max_tokens=40)
        turn = window.ask(PROSE)
        expect(turn.locator(".adapted footer")).to_contain_text("same as the base")
        window.find("#clear").click()
        first = turn_text(window.ask(CODE))
        window.find("#clear").click()
        assert turn_text(window.ask(CODE)) == first
        window.find("#clear").click()
        window.set(seed=8)
        assert turn_text(window.ask(CODE)) != first
        window.set(temperature=9)
        window.find("#prompt").fill("x")
        window.find("#prompt").press("Enter")
        expect(window.find(".turn")).to_have_count(1)
        expect(window.find("#temperature")).to_be_focused()


def turn_text(turn):
    return turn.locator(".base .text").inner_text()


def needs_no_mouse_page(browser, server):
    with Window(browser, server) as window:
        window.is_ready()
        keyboard = window.page.keyboard
        reached = []
        for _ in range(14):
            keyboard.press("Tab")
            name, is_visible = window.page.evaluate(FOCUS)
            assert is_visible, f"the focus on {name} cannot be seen"
            reached.append(name)
        for name in ("prompt", "adapter", "settings-toggle", "send"):
            assert name in reached, f"{name} is not in {reached}"
        in_order = [reached.index(name) for name in ("prompt", "adapter", "settings-toggle", "send")]
        assert in_order == sorted(in_order), reached
        unnamed = window.page.evaluate(UNNAMED)
        assert not unnamed, f"controls without a name: {unnamed}"

        window.find("#settings-toggle").focus()
        keyboard.press("Enter")
        expect(window.find("#settings-toggle")).to_have_attribute("aria-expanded", "true")
        expect(window.find("#temperature")).to_be_visible()
        window.slow_down()
        window.find("#prompt").focus()
        keyboard.type("two")
        keyboard.press("Shift+Enter")
        keyboard.type("lines")
        keyboard.press("Enter")
        expect(window.find(".asked")).to_have_text("two\nlines")
        own = window.find(".turn .base .own")
        expect(own).not_to_have_text("", timeout=20_000)
        keyboard.press("Escape")
        expect(window.find(".turn .base footer")).to_contain_text("stopped by you")
        expect(window.find("#send")).to_be_visible()
        expect(window.find("#prompt")).to_be_focused()


# The focused element, and whether something is drawn around it or the box it fills.
FOCUS = """() => {
  const node = document.activeElement;
  const drawn = (node) => node && getComputedStyle(node).outlineStyle !== "none"
    && parseFloat(getComputedStyle(node).outlineWidth) >= 2;
  return [node.id || node.textContent.trim() || node.className, node === document.body
    || Boolean(drawn(node) || drawn(node.closest(".composer")))];
}"""

UNNAMED = """() => [...document.querySelectorAll("input, select, textarea, button, [role=region], [role=img]")]
  .filter((node) => !(node.labels?.length || node.textContent.trim() && node.matches("button")
    || node.ariaLabel || node.getAttribute("aria-labelledby")))
  .map((node) => node.outerHTML)"""


def reads_in_light_and_dark_page(browser, server):
    grounds = []
    for scheme in ("light", "dark"):
        with Window(browser, server, scheme=scheme) as window:
            window.ask(PROSE)
            window.set(seed=2)
            faint = window.page.evaluate(FAINT)
            assert not faint, f"{scheme}: {faint}"
            grounds.append(window.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


# Texts whose contrast with what is behind them is below 4.5, the bound of WCAG AA.
FAINT = r"""() => {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, value, idx) => sum + value * [0.2126, 0.7152, 0.0722][idx], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if ((numbers(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const node of document.querySelectorAll("body *")) {
    const says = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!says || node instanceof SVGElement || !node.checkVisibility()) continue;
    const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((l, r) => r - l);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) faint.push(`${node.textContent.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


def fits_every_width_page(browser, server):
    for width in (320, 400, 640, 960, 1400):
        with Window(browser, server, size=(width, 800)) as window:
            window.set(max_tokens=20)
            window.ask("Donaudampfschifffahrt" * 12)
            needed = window.page.evaluate("document.documentElement.scrollWidth")
            assert needed <= width, f"{needed} at {width}"
            columns = window.page.evaluate(
                "new Set([...document.querySelectorAll('.answer')].map((node) => node.getBoundingClientRect().x)).size"
            )
            assert columns == (2 if width in (640, 1400) else columns)
            assert columns == (1 if width <= 400 else columns)
            for part in ("#send", "#adapter", "#settings-toggle"):
                expect(window.find(part)).to_be_in_viewport()


def shows_markup_as_text_page(browser, server):
    with Window(browser, server) as window:
        markup = '<img src=x onerror="document.title=1"><b>bold</b>'
        turn = window.ask(markup)
        assert turn.locator(".asked").inner_text() == markup
        expect(turn.locator("img, b")).to_have_count(0)
        assert window.page.title() == "tiny-llama · Chameleon"


def keeps_the_conversation_page(browser, server):
    """Each side goes on from its own answers."""
    with Window(browser, server) as window:
        bodies = []
        window.page.on("request", lambda request: bodies.append(request.post_data))
        first = window.ask(PROSE)
        own = first.locator(".adapted .text").inner_text()
        window.ask(CODE)
        sent = [json.loads(body) for body in bodies if body]
        assert len({body["seed"] for body in sent}) == 1
        adapted = [body for body in sent if body["model"].endswith(":mixed")][-1]
        base = [body for body in sent if ":" not in body["model"]][-1]
        assert [message["role"] for message in adapted["messages"]] == ["user", "assistant", "user"]
        assert adapted["messages"][1]["content"].strip() == own.strip()
        assert "chameleon" in adapted and "chameleon" not in base


def tells_refusals_page(browser, server):
    with Window(browser, server) as window:
        turn = window.ask("word " * 2000)
        expect(turn.locator(".base .failure")).to_contain_text("tokens")
        expect(turn.locator(".adapted .failure")).to_be_visible()
        turn = window.ask(PROSE)
        expect(turn.locator(".failure").first).to_be_hidden()


def tells_why_it_is_not_answered_page(browser, server):
    refusal = {"error": {"message": "the server is shutting down, and this is a long reason for it", "code": "x"}}
    with Window(browser, server, size=(320, 600)) as window:
        window.is_ready()
        window.page.route("**/v1/stats", lambda route: route.fulfill(status=503, body=json.dumps(refusal)))
        expect(window.find("#health-text")).to_have_text("Refuses")
        expect(window.find("#trouble")).to_contain_text("long reason")
        assert window.page.evaluate("document.documentElement.scrollWidth") <= 320
        window.page.unroute("**/v1/stats")
        window.is_ready()
        expect(window.find("#trouble")).to_be_hidden()


def is_served_as_declared_page(_, server):
    for path in ("/", "/style.css", "/page.js", "/chat.js", "/groups.js", "/api.js", "/icon.svg"):
        status, headers, body = server.get(path)
        assert status == 200 and body, path
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-cache"
        status, _, body = server.get(path, **{"if-none-match": headers["etag"]})
        assert (status, body) == (304, b""), path


def asks_for_a_key_page(browser, start):
    with start("--api-key", KEY) as server, Window(browser, server) as window:
        expect(window.find("#key-form")).to_be_visible()
        expect(window.find("#key-message")).to_have_text("")
        expect(window.find("#key")).to_be_focused()
        window.find("#key").fill("wrong")
        window.find("#key").press("Enter")
        expect(window.find("#key-message")).to_contain_text("not one of this server")
        expect(window.find("#health-text")).to_have_text("Needs a key")
        window.find("#key").fill(KEY)
        window.find("#key").press("Enter")
        window.is_ready()
        expect(window.find("#key-form")).to_be_hidden()
        expect(window.find("#prompt")).to_be_focused()
        window.ask(PROSE)
        window.page.reload()
        window.is_ready()
        kept = window.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert kept == [0, 1, ""], kept


def survives_the_server_page(browser, start):
    with start() as server, Window(browser, server) as window:
        window.is_ready()
        window.set(max_tokens=400)
        window.ask(PROSE)
        server.stop()
        expect(window.find("#health-text")).to_have_text("Not reachable", timeout=20_000)
        window.find("#prompt").fill("are you there?")
        window.find("#prompt").press("Enter")
        expect(window.find("#trouble")).to_be_visible()
        expect(window.find("#prompt")).to_have_value("are you there?")
        with start(port=server.port) as again:
            window.is_ready()
            expect(window.find("#trouble")).to_be_hidden()
            window.find("#prompt").press("Enter")
            expect(window.find("#send")).to_be_visible(timeout=60_000)
            expect(window.find(".turn").last.locator(".failure").first).to_be_hidden()
            assert sum(group["num_requests"] for group in again.clusters("mixed")) == 1


def tells_a_broken_answer_page(browser, server):
    """A stream that ends too early, and one that ends with an error, are not taken for whole answers."""
    begun = 'data: {"choices": [{"index": 0, "delta": {"content": "so far"}}]}\r\n\r\n'
    error = 'data: {"error": {"message": "the answer took more than 1 s", "code": "timeout"}}\n\n'
    with Window(browser, server) as window:
        for rest, told in (("", "The connection broke"), (error, "The answer took more than 1 s.")):
            kind = "text/event-stream"
            answer = begun + rest
            window.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=answer, content_type=kind))
            turn = window.ask(PROSE)
            expect(turn.locator(".base .text")).to_have_text("so far")
            expect(turn.locator(".base .failure")).to_contain_text(told)
            expect(window.find("#announcement")).to_have_text("An answer failed.")


def continues_without_a_template_page(browser, server):
    refusal = {"error": {"message": "the model has no chat template", "code": "no_chat_template"}}
    with Window(browser, server) as window:
        window.page.route(
            "**/v1/chat/completions", lambda route: route.fulfill(status=400, body=json.dumps(refusal))
        )
        turn = window.ask(PROSE)
        expect(turn.locator(".base .text")).not_to_have_text("")
        expect(turn.locator(".adapted .group")).to_be_visible()
        expect(turn.locator(".failure").first).to_be_hidden()
        asked = [url for url in window.asked if "/completions" in url]
        window.ask(CODE)
        again = [url for url in window.asked if "/completions" in url][len(asked) :]
        assert len(again) == 2 and not any("chat" in url for url in again), again


def needs_no_adapter_page(browser, start):
    with start(adapters={}) as server, Window(browser, server) as window:
        turn = window.ask(PROSE)
        expect(turn.locator(".answer")).to_have_count(1)
        expect(window.find("#groups-empty")).to_contain_text("No adapter is loaded")
        expect(window.find("#scale")).to_be_disabled()


def pictures(browser, server, folder):
    """What somebody who changes the page should look at."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size, scheme in (
        ("wide-light", (1400, 900), "light"),
        ("wide-dark", (1400, 900), "dark"),
        ("narrow-light", (400, 800), "light"),
        ("narrow-dark", (400, 800), "dark"),
    ):
        with Window(browser, server, size, scheme) as window:
            window.is_ready()
            window.page.screenshot(path=folder / f"{name}-welcome.png")
            window.ask(PROSE)
            window.ask(CODE)
            window.page.wait_for_timeout(1500)
            window.page.screenshot(path=folder / f"{name}.png", full_page=size[0] < 960)


def train(program, folder, name, clusters):
    out = folder / name
    flags = ["--method", "core", "--rank", "4", "--epochs", "2", "--prefix", "16", "--seq-len", "64"]
    subprocess.run(
        [program, "train", "--model", MODEL, "--data", MODEL / "mix.jsonl", "--out", out, "--clusters", clusters, *flags],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=pathlib.Path, help="the built `chameleon`")
    parser.add_argument("names", nargs="*", help="tests whose name contains one of these")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--pictures", type=pathlib.Path, help="folder for screenshots")
    parser.add_argument("--strict", action="store_true", help="fail where it would be skipped")
    given = parser.parse_args()
    missing = [
        *(["Python package `playwright`"] if sync_playwright is None else []),
        *([] if given.chromium else ["Chromium"]),
    ]
    if missing:
        print(f"skipped: the page was not tested, because there is no {' and no '.join(missing)}")
        return 1 if given.strict else 0
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trained = {"mixed": train(given.program, folder, "mixed", "3"), "pair": train(given.program, folder, "pair", "2")}

        def start(*flags, adapters=trained, port=0):
            return Server(given.program, adapters, *flags, port=port)

        server = stack.enter_context(start())
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        tests = {name: test for name, test in globals().items() if name.endswith("_page")}
        if given.names:
            tests = {name: test for name, test in tests.items() if any(part in name for part in given.names)}
        failed = []
        for name, test in tests.items():
            began = time.monotonic()
            needs_own = "start" in test.__code__.co_varnames[:2]
            try:
                test(browser, start if needs_own else server)
                outcome = "ok"
            except Exception as error:
                failed.append(name)
                outcome = f"FAILED\n{type(error).__name__}: {error}"
            print(f"{name} {time.monotonic() - began:.1f} s {outcome}", flush=True)
        if given.pictures:
            pictures(browser, server, given.pictures)
        browser.close()
    if not tests:
        print(f"no test is named like {', '.join(given.names)}")
        return 1
    print(f"{len(failed)} of {len(tests)} failed: {', '.join(failed)}" if failed else f"{len(tests)} tests passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
