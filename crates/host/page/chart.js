// Stacked areas over time, on a canvas. Knows samples and series, nothing of VMs.
"use strict";

const chart = (() => {
  const LEFT = 62, RIGHT = 8, TOP = 10, STRIP = 8, BOTTOM = 22;

  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Steps of a size axis: 1, 2 or 5 times a power of two of bytes, at most six of them.
  function sizeStep(most) {
    let unit = 1;
    while (unit * 1024 <= most) unit *= 1024;
    for (; ; unit *= 10) {
      for (const factor of [1, 2, 5]) if (most / (unit * factor) <= 6) return unit * factor;
    }
  }

  function areas(context, samples, series, x, y) {
    let below = samples.map(() => 0);
    for (const one of series) {
      const top = samples.map((sample, at) => below[at] + (sample.values[one.key] || 0));
      context.fillStyle = one.color;
      context.beginPath();
      samples.forEach((sample, at) => context.lineTo(x(sample.time), y(top[at])));
      for (let at = samples.length - 1; at >= 0; at--) context.lineTo(x(samples[at].time), y(below[at]));
      context.fill();
      below = top;
    }
    return below;
  }

  // Draws `view`: samples {time, values, level, marks}, series {key, color}, from and to in milliseconds, most in bytes,
  // line {value, color} or null, formats for size and time. Gives what is at a point, for a hint.
  function draw(canvas, view) {
    const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = 320;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.height = height + "px";
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.font = "12px system-ui, sans-serif";
    const floor = height - BOTTOM - STRIP, right = width - RIGHT;
    const x = time => LEFT + (time - view.from) / (view.to - view.from) * (right - LEFT);
    const y = bytes => floor - bytes / view.most * (floor - TOP);
    grid(context, view, x, y, right);
    context.save();
    context.beginPath();
    context.rect(LEFT, 0, right - LEFT, height);
    context.clip();
    areas(context, view.samples, view.series, x, y);
    if (view.line) {
      context.strokeStyle = view.line.color;
      context.setLineDash([6, 4]);
      context.beginPath();
      context.moveTo(LEFT, y(view.line.value));
      context.lineTo(right, y(view.line.value));
      context.stroke();
      context.setLineDash([]);
    }
    view.samples.forEach((sample, at) => {
      const next = view.samples[at + 1];
      context.fillStyle = css("--" + sample.level);
      context.fillRect(x(sample.time), floor + 3, x(next ? next.time : view.to) - x(sample.time) + .5, STRIP - 3);
      if (sample.marks.length) {
        context.fillStyle = css("--ink");
        context.beginPath();
        context.arc(x(sample.time), TOP + 2, 2.5, 0, 7);
        context.fill();
      }
    });
    context.restore();
    return px => {
      const time = view.from + (px - LEFT) / (right - LEFT) * (view.to - view.from);
      const near = view.samples.reduce((best, one) =>
        best && Math.abs(best.time - time) < Math.abs(one.time - time) ? best : one, null);
      return near && Math.abs(x(near.time) - px) < 40 ? near : null;
    };
  }

  function grid(context, view, x, y, right) {
    context.strokeStyle = css("--line");
    context.fillStyle = css("--faint");
    context.textAlign = "right";
    const step = sizeStep(view.most);
    for (let bytes = 0; bytes <= view.most; bytes += step) {
      context.beginPath();
      context.moveTo(LEFT, y(bytes) + .5);
      context.lineTo(right, y(bytes) + .5);
      context.stroke();
      context.fillText(view.size(bytes), LEFT - 7, y(bytes) + 4);
    }
    context.textAlign = "center";
    const seconds = (view.to - view.from) / 1000, every = [10, 60, 300].find(s => seconds / s <= 8) * 1000;
    for (let time = Math.ceil(view.from / every) * every; time < view.to; time += every) {
      context.fillText(view.clock(time), x(time), 320 - 5);
    }
  }

  return { draw, css };
})();
