"""The page in a real browser: one writes, words fade, and what a model says stays text."""

import glob
import shutil
import subprocess
import sys
import time
import unittest

from support import SKIPPED, Server, ServeTest, main

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    webdriver = None

DRIVER, SYSTEM_PYTHON = shutil.which("chromedriver"), "/usr/bin/python3"
HOSTILE = "<img src=x onerror='document.title=1'><script>document.title=2</script> **bold** `<b>`"


def open_browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", "--disable-gpu",
                     "--window-size=1300,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service(DRIVER), options=options)


class PageTest(ServeTest):
    ARGUMENTS = ("--budget", 32, "--temperature", 0)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = open_browser()

    @classmethod
    def tearDownClass(cls):
        cls.browser.quit()
        super().tearDownClass()

    def setUp(self):
        self.browser.get(self.server.url + "/")
        self.wait(lambda: self.one("#model").text == "SmolLM2-135M-Instruct.Q4_1")
        for field in self.all("[name=max_tokens]"):
            self.write(field, "60")

    def tearDown(self):
        self.assertEqual([entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"], [])

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, holds):
        deadline = time.monotonic() + 30
        while not holds():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    @staticmethod
    def write(field, text):
        field.clear()
        field.send_keys(text)

    def say(self, text):
        self.one("#message").send_keys(text + Keys.ENTER)

    def wait_for_answer(self):
        self.wait(lambda: self.one("#send").is_enabled() and self.all(".token"))

    def held(self, token):
        return float(self.browser.execute_script("return arguments[0].style.getPropertyValue('--held')", token) or 1)

    def words(self):
        return "".join(self.browser.execute_script("return [...document.querySelectorAll('.token')].map(t => t.textContent)"))

    def test_a_conversation_goes_on_and_its_words_fade(self):
        self.say("Name three rivers in Europe.")
        self.wait_for_answer()
        self.assertIn("Name three rivers in Europe.", self.words())
        tokens = self.all(".token")
        self.assertLess(self.held(tokens[4]), self.held(tokens[-1]))
        said = self.words()
        self.say("And a mountain?")
        self.wait_for_answer()
        self.assertTrue(self.words().startswith(said[:-1]))
        self.assertIn("And a mountain?", self.words())

    def test_a_token_shows_who_holds_it_and_time_goes_back(self):
        self.say("Name three rivers in Europe.")
        self.wait_for_answer()
        token = self.all(".token")[4]
        self.browser.execute_script("arguments[0].scrollIntoView()", token)
        token.click()
        self.assertEqual(len(self.all(".holders tr")), 30)
        cells, held = self.all(".holders td"), self.all(".holders td.held")
        self.assertEqual(len(cells), 90)
        self.assertIn(f"{len(held)} of 90 KV heads", self.one("figcaption").text)
        self.assertAlmostEqual(self.held(token), len(held) / 90, places=2)
        for cell in cells:
            self.assertNotEqual(cell.text == "", cell not in held)
        now = self.held(token)
        self.browser.execute_script("let t = document.querySelector('.time'); t.value = 10; t.dispatchEvent(new Event('input'))")
        self.assertGreaterEqual(self.held(token), now)
        self.assertIn("later", self.all(".token")[-1].get_attribute("class"))
        self.one(".words").send_keys(Keys.ARROW_RIGHT)
        self.assertIn("token 5:", self.one("figcaption").text)

    def test_selected_text_is_asked_after(self):
        self.one(".survived").click()
        self.assertIn("Select some", self.one(".answer").text)
        self.say("Name three rivers in Europe.")
        self.wait_for_answer()
        self.browser.execute_script("document.getSelection().selectAllChildren(document.querySelector('.words'))")
        self.one(".survived").click()
        self.assertRegex(self.one(".answer").text, r"^\d+ % of it is held; \d+ of \d+ tokens by no head any more\.$")

    def test_two_ways_side_by_side(self):
        self.one("#compare").click()
        for field in self.all("[name=max_tokens]"):
            self.write(field, "40")
        second = self.all(".chat")[1]
        second.find_element(By.CSS_SELECTOR, "[name=policy] [value=full]").click()
        self.say("Name three rivers in Europe.")
        self.wait(lambda: self.one("#send").is_enabled() and len(self.all(".state")) == 2)
        states = [state.text for state in self.all(".state")]
        self.assertRegex(states[0], r"^a2sf:budget=32.*: 32 of|^a2sf:budget=32.*; \d+ of \d+ tokens held$")
        self.assertRegex(states[1], r"^full: 40 tokens in .*; (\d+) of \1 tokens held$")

    def test_what_is_no_text_stays_text(self):
        self.say(HOSTILE)
        self.wait_for_answer()
        self.assertIn(HOSTILE, self.words())
        self.one("#plain").click()
        self.assertIn("<img src=x onerror", self.one(".turn.user").text)
        self.assertEqual((self.one(".turn.user strong").text, self.one(".turn.user code").text), ("bold", "<b>"))
        self.assertEqual(self.all(".words img, .words script"), [])
        self.assertEqual(self.browser.title, "a2sf")

    def test_it_stops_is_asked_again_and_says_what_is_wrong(self):
        self.write(self.one("[name=max_tokens]"), "4000")
        self.say("Tell a very long story.")
        self.wait(lambda: len(self.all(".token")) > 30)
        self.one("#stop").click()
        self.wait_for_answer()
        self.assertEqual(self.one(".state").text, "Stopped.")
        self.write(self.one("[name=max_tokens]"), "20")
        self.one("#again").click()
        self.wait(lambda: "20 tokens" in self.one(".state").text)
        self.assertEqual(self.words().count("very long story"), 1)
        self.write(self.one("[name=max_tokens]"), "100000")
        self.say("More")
        self.wait(lambda: "context" in self.one(".state").text)
        self.browser.get_log("browser")  # where the browser notes the refusal too


class FilesTest(unittest.TestCase):
    def test_files_need_no_key_and_may_load_nothing_else(self):
        with open(__file__, encoding="utf-8") as keys:
            server = Server("-t", 1, "--api-key-file", keys.name)
        for path, kind in (("/", "text/html"), ("/page/main.js", "text/javascript"), ("/page/style.css", "text/css")):
            with server.open(path) as answer:
                self.assertEqual(answer.headers["Content-Type"], f"{kind}; charset=utf-8")
                self.assertTrue(answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'"))
        for path in ("/page/", "/page/../serve.cc", "/page/main.jsx", "/v1/models"):
            self.assertEqual(server.ask(path)[0], 401)
        self.assertEqual(server.stop(), (0, ""))


if __name__ == "__main__":
    if webdriver is None and sys.executable != SYSTEM_PYTHON and glob.glob("/usr/lib/python3/dist-packages/selenium"):
        sys.exit(subprocess.run([SYSTEM_PYTHON, __file__], check=False).returncode)  # Debian's package is of Debian's Python
    if webdriver is None or DRIVER is None:
        print("page_test: chromium-driver or python3-selenium is not installed")
        sys.exit(SKIPPED)
    sys.exit(main())
