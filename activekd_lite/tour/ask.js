// Ask the teacher: one image, one wording, and how probable each class is.
function render({ model, el }) {
  const S = shell({ model, el, name: "ask", title: "Ask the teacher", hands: "click an image · choose a wording", keys: [["← →", "previous or next image"]] });
  const { classes, truth, answers } = Object.fromEntries(["classes", "truth", "answers"].map((key) => [key, S.view(key)]));
  let image = 0, wording = 0;
  const menu = S.select("wording", answers.map((a) => a.wording), answers[0].wording, (text) => { wording = answers.findIndex((a) => a.wording === text); show(); });
  const gallery = make("div", "tiles", S.side(2, 260)), right = S.side(3, 280), head = make("div", "asked", right);
  const picture = make("img", "", head, { width: 96, height: 96 }), words = make("p", "", head), rows = make("div", "", right);
  const buttons = truth.map((_, i) => {
    const button = S.button("", () => { image = i; show(); }, { parent: gallery, title: `image ${i + 1}`, pressed: i === 0 });
    button.element.classList.add("akd-tile");
    const small = make("img", "", button.element, { width: 44, height: 44, alt: `image ${i + 1}` });
    S.picture(i).then((source) => { small.src = source; });
    return button;
  });

  function show() {
    const { probs, accuracy, wording: text } = answers[wording], p = probs[image], best = p.indexOf(Math.max(...p));
    buttons.forEach((button, i) => button.press(i === image));
    Object.assign(picture, { alt: `image ${image + 1}` });
    S.picture(image).then((source) => { picture.src = source; });
    const right = best === truth[image];
    words.textContent = `The teacher compares this image with ten sentences: “${text.replace("{}", "0")}” to “${text.replace("{}", "9")}”. Most probable: ${classes[best]} (${percent(p[best])}). ${right ? "That is right." : `A person wrote a ${classes[truth[image]]}.`}`;
    bars(rows, classes.map((name, c) => [name, p[c]]));
    S.status(`With this wording, the teacher's accuracy on all 1,100 images is ${percent(accuracy / 100)}. It was never shown their labels.`);
  }
  S.key("ArrowRight", () => { image = (image + 1) % truth.length; show(); });
  S.key("ArrowLeft", () => { image = (image + truth.length - 1) % truth.length; show(); });
  S.onReset(() => { image = wording = 0; menu.set(null, answers[0].wording); show(); });
  show();
  return S.close;
}

export default { render };
