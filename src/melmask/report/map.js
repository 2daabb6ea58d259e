for (const map of document.querySelectorAll(".map")) {
  const board = map.querySelector(".board"), playing = map.querySelector(".playing");
  const points = [...map.querySelectorAll(".point")], buttons = [...map.querySelectorAll("button")];
  const reach = 40; // of a click, in pixels
  let audio = null;

  const centre = (point) => {
    const box = point.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const isOut = (point) => point.classList.contains("out");
  const nearest = (cost) => {
    let best = null, least = Infinity;
    for (const point of points) {
      const value = isOut(point) ? Infinity : cost(...centre(point));
      if (value < least) [best, least] = [point, value];
    }
    return best;
  };
  const play = (point) => {
    points.forEach((other) => other.setAttribute("tabindex", other === point ? "0" : "-1"));
    if (audio) audio.pause();
    const sound = point.dataset.sound;
    playing.textContent = point.getAttribute("aria-label") + (sound ? "" : " (no sound)");
    if (!sound) return;
    audio = new Audio(sound);
    audio.play().catch(() => {});
  };
  const choose = (point) => {
    if (!point) return;
    if (document.activeElement === point) play(point);
    else point.focus({ preventScroll: true });
  };

  board.addEventListener("focusin", (event) => play(event.target));
  board.addEventListener("mousedown", (event) => event.preventDefault());
  board.addEventListener("click", (event) => {
    const away = (x, y) => Math.hypot(x - event.clientX, y - event.clientY);
    choose(nearest((x, y) => (away(x, y) < reach ? away(x, y) : Infinity)));
  });
  board.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" || event.key === " ") play(event.target);
    else if (step) {
      const [fromX, fromY] = centre(event.target);
      choose(nearest((x, y) => {
        const along = (x - fromX) * step[0] + (y - fromY) * step[1];
        const across = Math.abs((x - fromX) * step[1]) + Math.abs((y - fromY) * step[0]);
        return along > 0.5 ? along + 2 * across : Infinity;
      }));
    } else return;
    event.preventDefault();
  });
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(on && other === button)));
      points.forEach((point) => point.classList.toggle("out", on && point.dataset.key !== button.dataset.key));
    });
  }
}
