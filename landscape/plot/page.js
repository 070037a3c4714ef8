"use strict";
/* Draws the figures of a page: panels arranged to fit the width, cameras of one figure linked. */
(function () {
  const config = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false, // a page that works offline offers no upload
    plotlyServerURL: "",
    modeBarButtonsToRemove: [
      "select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "resetCameraLastSave3d",
    ],
    toImageButtonOptions: { format: "png", scale: 3 },
  };

  /* Set target["a"]["b"][0] from the key "a.b[0]". */
  function assign(target, key, value) {
    const steps = key.replace(/\[(\d+)\]/g, ".$1").split(".");
    const last = steps.pop();
    for (const step of steps) target = target[step] = target[step] || {};
    target[last] = value;
  }

  function fitting(layout, width) {
    const all = (layout.meta && layout.meta.arrangements) || [];
    return all.find((one) => width < one.below);
  }

  /* When one scene of a figure is turned, turn the others. An update that names several scenes is
     our own, or the reset button's: nothing is left to do, so the events end there. */
  function follow(element, event) {
    const turned = new Set(
      Object.keys(event || {}).map((key) => (key.match(/^(scene\d*)\.camera/) || [])[1])
    );
    turned.delete(undefined);
    if (turned.size !== 1) return;
    const [source] = turned;
    const camera = event[source + ".camera"] || element.layout[source].camera;
    const update = {};
    for (const key of Object.keys(element.layout)) {
      if (/^scene\d*$/.test(key)) update[key + ".camera"] = structuredClone(camera);
    }
    if (Object.keys(update).length > 1) Plotly.relayout(element, update);
  }

  window.drawFigure = function (id, figure) {
    const element = document.getElementById(id);
    let current = fitting(figure.layout, element.clientWidth);
    if (current) {
      for (const key of Object.keys(current.layout)) {
        assign(figure.layout, key, current.layout[key]);
      }
    }
    element.style.height = (figure.layout.height || 450) + "px";
    Plotly.newPlot(element, figure.data, figure.layout, config).then(function () {
      element.on("plotly_relayouting", (event) => follow(element, event));
      element.on("plotly_relayout", (event) => follow(element, event));
      window.addEventListener("resize", function () {
        const better = fitting(figure.layout, element.clientWidth);
        if (better && better !== current) {
          current = better;
          element.style.height = better.layout.height + "px";
          Plotly.relayout(element, structuredClone(better.layout));
        }
      });
    });
  };
})();
