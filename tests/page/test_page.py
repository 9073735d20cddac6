"""The live page of `miniflow metrics`, in a real browser, over a real engine. `ci/page.sh` runs this."""
# ruff: noqa: PT009 (there is no pytest here, which would explain a plain assert)

from __future__ import annotations

import functools
import os
import signal
import sys
import unittest

from browser import Browser, missing
from running import Engine, Pretender, Server, unique_name, until

browser: Browser


def setUpModule() -> None:
    lacking = missing()
    if lacking is not None:
        raise unittest.SkipTest(f"there is no {lacking}")
    global browser
    browser = Browser()
    unittest.addModuleCleanup(browser.close)


class PageOfAnEngine(unittest.TestCase):
    def setUp(self) -> None:
        browser.size(1280, 800)
        self.name = unique_name()
        self.engine = Engine(self.name)
        self.addCleanup(self.end_engine)
        self.server = Server(self.name)
        self.addCleanup(self.server.end)
        browser.console()
        browser.open(self.server.url)
        until("the page has a rate", lambda: self.rate() > 0)

    def end_engine(self) -> None:
        self.engine.end()  # not always that of the beginning

    def rate(self) -> float:
        text = browser.text("#rate").replace(",", "")
        return float(text) if text.replace(".", "").isdigit() else 0.0

    def is_gone(self) -> bool:
        return "gone" in browser.text("#state")

    def test_it_shows_who_it_is_about_and_what_it_does(self) -> None:
        self.assertEqual(browser.text("h1"), self.name)
        self.assertIn("running", browser.text("#state"))
        self.assertIn(self.name, browser.run("return document.title"))
        about = browser.text("#about")
        self.assertIn(f"process {self.engine.process.pid}", about)
        self.assertIn("scaling adaptive", about)
        self.assertEqual(browser.count("#classes tr"), 2)

    def test_an_address_with_a_name_that_is_none_shows_what_there_is(self) -> None:
        browser.open("about:blank")  # else nothing is loaded anew
        browser.open(f"{self.server.url}#%")
        until("the page has a rate", lambda: self.rate() > 0)
        self.assertEqual(browser.text("h1"), self.name)

    def test_it_has_a_row_and_a_bar_for_every_worker(self) -> None:
        names = "return [...document.querySelectorAll('#workers th')].map(th => th.textContent)"

        def rows() -> list[str]:
            return list(browser.run(names))

        def workers() -> list[str]:
            workers = self.server.status(self.name)["workers"]
            return [f"{worker['class']} {worker['slot']}" for worker in workers]

        until("rows and workers agree", lambda: len(rows()) >= 3 and rows() == workers())
        self.assertEqual(browser.count("#workers .bar i"), len(rows()))

    def test_its_numbers_move(self) -> None:
        first = self.rate()
        until("another rate", lambda: self.rate() not in (0.0, first))
        ended = browser.text("#totals dd")
        until("more tasks", lambda: browser.text("#totals dd") != ended)
        until(
            "a curve",
            lambda: (
                "L" in (browser.run("return document.querySelector('#rate-history .line').getAttribute('d')"))
            ),
        )
        until("latencies", lambda: "s" in browser.text("#classes td:nth-child(6)"))

    def test_it_tells_scaling_decisions_and_why(self) -> None:
        until("a decision", lambda: browser.count("#decisions li") > 0)
        self.assertIn("io: ", browser.text("#decisions li b"))
        self.assertGreater(len(browser.text("#decisions li p")), 5)

    def test_it_tells_the_crash_of_a_worker(self) -> None:
        self.assertEqual(browser.count("#crashes li"), 0)
        worker = self.server.status(self.name)["workers"][0]
        os.kill(worker["pid"], signal.SIGKILL)
        until("the crash is told", lambda: browser.count("#crashes li") > 0)
        self.assertIn("SIGKILL", browser.text("#crashes li"))
        self.assertIn(f"process {worker['pid']}", browser.text("#crashes li"))
        self.assertIn("SIGKILL 1", browser.text("#signals"))

    def test_it_says_when_the_engine_is_gone_and_when_there_is_one_again(self) -> None:
        completed = browser.text("#totals dd")
        self.assertTrue(browser.run("return document.querySelector('#banner').hidden"))
        self.engine.end()
        until("it says that the engine is gone", self.is_gone)
        self.assertFalse(browser.run("return document.querySelector('#banner').hidden"))
        self.assertIn(self.name, browser.text("#banner"))
        self.assertIn("gone", browser.run("return document.title"))
        # The last picture stays.
        self.assertGreaterEqual(
            browser.text("#totals dd").replace(",", "").zfill(12), completed.replace(",", "").zfill(12)
        )
        self.engine = Engine(self.name)
        until("it shows the new engine", lambda: "running" in browser.text("#state") and self.rate() > 0)
        self.assertIn(f"process {self.engine.process.pid}", browser.text("#about"))

    def test_it_says_when_its_server_does_not_answer(self) -> None:
        self.server.end(signal.SIGTERM)
        self.assertEqual(self.server.process.returncode, 0)
        until("it says so", lambda: "no answer" in browser.text("#state"))

    def test_nothing_goes_wrong_in_the_console(self) -> None:
        ended = browser.text("#totals dd")
        until("some looks more", lambda: browser.text("#totals dd") != ended)
        self.assertEqual(browser.console(), [])

    def test_it_fits_a_phone(self) -> None:
        browser.size(390, 844)
        until(
            "no wider than the display",
            lambda: browser.run(
                "return document.documentElement.scrollWidth <= innerWidth && innerWidth == 390"
            ),
        )
        # What is wider than its card can be scrolled there.
        self.assertEqual(browser.text("h1"), self.name)

    def test_it_is_dark_for_who_likes_it_dark(self) -> None:
        ground = "return getComputedStyle(document.body).backgroundColor"
        self.addCleanup(browser.colours, "")
        seen = []
        for scheme in ("light", "dark"):
            browser.colours(scheme)
            seen.append(browser.run(ground))
        self.assertEqual(len(set(seen)), 2, seen)


class PageOfOtherEngines(unittest.TestCase):
    def is_shown(self, name: str) -> bool:
        return browser.text("h1") == name

    def test_one_of_several_engines_can_be_chosen(self) -> None:
        names = [unique_name(), unique_name()]
        for name in names:
            self.addCleanup(Engine(name).end)
        server = Server()
        self.addCleanup(server.end)
        browser.open(server.url)
        offered = "return [...document.querySelectorAll('#engines option')].map(option => option.value)"
        until("both are offered", lambda: set(names) <= set(browser.run(offered)))
        for name in names:
            browser.run(
                f"const list = document.querySelector('#engines'); list.value = '{name}';"
                "list.dispatchEvent(new Event('change'))"
            )
            until(f"{name} is shown", functools.partial(self.is_shown, name))
        # It is still chosen after the page was loaded again.
        browser.run("location.reload()")
        until("it is shown again", lambda: self.is_shown(names[-1]))

    def test_what_an_engine_says_is_text_whatever_it_looks_like(self) -> None:
        name = unique_name()
        engine = Engine(name)
        self.addCleanup(engine.end)
        server = Server(name)
        self.addCleanup(server.end)
        markup = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
        until("there is a decision to tell", lambda: server.status(name)["decisions"])
        status = server.status(name)
        status.update(name=markup, version=markup, policy=markup, state=markup, notes=[markup])
        for decision in status["decisions"]:
            decision.update(reason=markup)
        for worker in status["workers"]:
            worker.update(state=markup)
        crash = {"at_ms": 0, "worker": 1, "pid": 2, "class": "cpu", "signal": 11, "exit_code": 0}
        crash.update(started=1, returned=1, uptime_ms=1, task=markup, place=markup)
        status["crashes"] = [crash]
        status["classes"][0]["broken"] = markup
        pretender = Pretender(status)
        self.addCleanup(pretender.end)
        browser.open(pretender.url)
        places = ["h1", "#about", "#state", "#notes", "#decisions p", "#workers td", "#crashes p"]
        until("it is shown", lambda: all(markup in browser.text(place) for place in places))
        self.assertEqual(browser.count("body img"), 1)  # the page's own
        self.assertEqual(browser.count("script"), 1)
        self.assertNotEqual(browser.run("return document.title"), "run")


if __name__ == "__main__":
    sys.exit(not unittest.main(verbosity=2, exit=False).result.wasSuccessful())
