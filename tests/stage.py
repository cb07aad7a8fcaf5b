"""An explorer's page in a plain browser tab, without JupyterLab.

The tab runs the page's own script on a model of a few lines. What it sends goes through Playwright
to the explorer, and what the explorer changes goes back, so that tests of layout, keys and
accessibility need a second and not half a minute.
"""

import base64
import json
from pathlib import Path

HTML = """<!doctype html><html lang="en"><title>explorer</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<body style="margin:8px">
<main><h1 style="font-size:16px;margin:0">A notebook</h1><div id="stage"></div></main>
</body></html>"""
START = """async ([script, style, state]) => {
  const bytes = (v) => new DataView(Uint8Array.from(atob(v.bytes), (c) => c.charCodeAt(0)).buffer);
  const read = (v) => v && typeof v === 'object' && 'bytes' in v ? bytes(v) : v;
  const text = (view) => btoa(Array.from(view, (byte) => String.fromCharCode(byte)).join(''));
  const pack = (v) => v instanceof DataView ? { bytes: text(new Uint8Array(v.buffer)) } : v;
  const now = {}, heard = {}, changed = {};
  const call = (event, ...rest) => { for (const action of heard[event] || []) action(...rest); };
  for (const [key, value] of Object.entries(state)) now[key] = read(value);
  const model = {
    get: (key) => now[key],
    set: (key, value) => { now[key] = value; changed[key] = value; },
    save_changes: () => {
      for (const [key, value] of Object.entries(changed)) {
        delete changed[key];
        toKernel({ set: key, value: pack(value) });
      }
    },
    send: (content) => toKernel({ message: content }),
    on: (event, action) => { for (const e of event.split(' ')) (heard[e] ||= []).push(action); },
    off: (event, action) => { heard[event] = (heard[event] || []).filter((a) => a !== action); },
  };
  window.fromKernel = (values, message) => {
    for (const [key, value] of Object.entries(values)) now[key] = read(value);
    for (const key of Object.keys(values)) call('change:' + key);
    if (message) call('msg:custom', message, []);
  };
  window.listeners = () => Object.values(heard).flat().length;
  document.head.append(Object.assign(document.createElement('style'), { textContent: style }));
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
  const page = await import(url);
  window.closePage = await page.default.render({ model, el: document.querySelector('#stage') });
}"""


class Stage:
    """`Stage(context, explorer)`: the explorer in a new tab; `.page` is Playwright's page.

    Call `wait(milliseconds)` or a locator's method to let messages pass.
    """

    def __init__(self, context, explorer, *, dark: bool = False):
        self.explorer, self.widget, self.troubles = explorer, explorer.widget, []
        self._receiving = False
        self.page = context.new_page()
        self.page.on("console", lambda m: m.type == "error" and self.troubles.append(m.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.set_content(HTML)
        self.darken(dark)
        self.page.expose_function("toKernel", self._to_kernel)
        other = ("layout", "tabbable", "tooltip")
        self.keys = keys = [k for k in self.widget.keys if k[0] != "_" and k not in other]
        state = {key: _pack(getattr(self.widget, key)) for key in keys}
        self.widget.observe(self._to_page, keys)
        self.widget.send = lambda content, buffers=None: self._call({}, content)
        self._queue = []
        self.page.evaluate(START, [str(self.widget._esm), str(self.widget._css), state])

    def darken(self, dark: bool) -> None:
        """Change the theme, as JupyterLab does."""
        self.page.evaluate(
            """(dark) => {
              document.documentElement.style.colorScheme = dark ? 'dark' : 'light';
              Object.assign(document.body.style, dark
                ? { background: '#111', color: '#eee' } : { background: '#fff', color: '#111' });
              document.body.dataset.jpThemeLight = String(!dark);
            }""",
            dark,
        )

    def _to_kernel(self, event: dict) -> None:
        if "message" in event:
            self.explorer._on_message(self.widget, event["message"], [])
        elif event["set"] in self.keys:
            self._receiving = event["set"]
            try:
                self.widget.set_state({event["set"]: _unpack(event["value"])})
            finally:
                self._receiving = False

    def _to_page(self, change: dict) -> None:
        if self._receiving != change["name"]:
            self._call({change["name"]: _pack(change["new"])}, None)

    def _call(self, values: dict, message: dict | None) -> None:
        self._queue.append((values, message))

    def flush(self) -> None:
        """Give the page what the explorer has changed since."""
        while self._queue:
            queue, self._queue = self._queue, []
            for values, message in queue:
                self.page.evaluate("([v, m]) => fromKernel(v, m)", [values, message])

    def wait(self, milliseconds: int = 200) -> None:
        """Let messages pass in both directions for a while."""
        for _ in range(max(1, milliseconds // 50)):
            self.page.wait_for_timeout(50)
            self.flush()

    def picture(self, path: Path) -> None:
        self.wait(300)
        self.page.locator(".akd-shell").screenshot(path=path)

    def close(self) -> None:
        self.page.evaluate("() => closePage()")
        left = self.page.evaluate("() => listeners()")
        self.page.close()
        self.explorer.close()
        assert not self.troubles, self.troubles
        assert not left, "the closed page still listens to its model"


def _pack(value):
    if isinstance(value, bytes | memoryview):
        return {"bytes": base64.b64encode(value).decode()}
    return json.loads(json.dumps(value))


def _unpack(value):
    """As a comm delivers it: bytes arrive as a memoryview."""
    binary = isinstance(value, dict) and "bytes" in value
    return memoryview(base64.b64decode(value["bytes"])) if binary else value
