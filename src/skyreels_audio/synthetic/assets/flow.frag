// Where in the source frame a point of the surface was: pixels, and what it is. Drawn without multisampling.
in vec3 T, was;
in vec2 field;
in vec4 trait;
uniform float collar;
out vec4 place; // x, y (pixels, down), depth (NDC), surface

void main() {
#if MATERIAL == 6
    float ax = abs(T.x), neckline = 0.585 + collar - 0.9 * max(0.0, 0.085 - ax) * step(T.y, 0.0) * step(collar, 0.02);
    if (T.z > neckline) discard;
#elif MATERIAL == 7
    if (field.x < 0.0) discard;
#endif
    place = vec4(was, float(MATERIAL + 1) + (trait.z > 0.5 ? 0.5 : 0.0));
}
